// What a caller may not ask for: an exception where there are exceptions, the end of the call where there are none (WebAssembly).
#pragma once
#include <stdexcept>

[[noreturn]] inline void refuse(const char* what) {
#if defined(__cpp_exceptions)
    throw std::invalid_argument(what);
#else
    (void)what;
    __builtin_trap();
#endif
}
