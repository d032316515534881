// Chooses the instruction set once, at first use.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernel_table.hpp"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys and ciphertexts are little-endian");

namespace {

const KernelTable& choose() {
    const char* forced = std::getenv("CIPHERSHIFT_ISA");
    const std::string wanted = forced ? forced : "";
    bool avx512 = false, avx2 = false;
#if defined(CS_X86)
    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bw");
    if (avx512 && (wanted.empty() || wanted == "avx512")) return isa_avx512::table();
    if (avx2 && (wanted.empty() || wanted == "avx2")) return isa_avx2::table();
#endif
    if (wanted.empty() || wanted == "portable") return isa_portable::table();
    throw std::runtime_error("CIPHERSHIFT_ISA=" + wanted + " is not available on this machine; use avx512, avx2 or portable" +
                             (avx512 ? "" : avx2 ? " (avx512 is missing)" : " (avx2 and avx512 are missing)"));
}

}  // namespace

const KernelTable& kernel() {
    static const KernelTable& chosen = choose();
    return chosen;
}
