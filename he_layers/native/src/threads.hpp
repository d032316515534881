// Work shared between threads in equal pieces, as few as `most` allows: each piece has a price (a key read once more), so none is small.
#pragma once
#include <algorithm>
#include <cstddef>
#include <functional>
#include <new>
#if !defined(__wasm__)
#include <exception>
#include <mutex>
#include <thread>
#include <vector>
#endif

#if defined(__wasm__)

// One thread: all at once.
inline void share(size_t count, size_t, size_t, const std::function<void(size_t, size_t, size_t)>& work) {
    if (count) work(0, count, 0);
}

#else

// Calls work(begin, end, thread) over [0, count) in pieces of at most `most`; a thread that is free takes the next one.
inline void share(size_t count, size_t threads, size_t most, const std::function<void(size_t, size_t, size_t)>& work) {
    if (count == 0) return;
    threads = std::max<size_t>(1, std::min(threads, count));
    const size_t rounds = (count + threads * most - 1) / (threads * most), piece = (count + threads * rounds - 1) / (threads * rounds);
    std::mutex mutex;
    size_t next = 0;
    std::exception_ptr failure;
    const auto run = [&](size_t thread) {
        for (;;) {
            size_t begin, end;
            {
                const std::lock_guard<std::mutex> lock(mutex);
                if (next >= count || failure) return;
                begin = next;
                end = next += std::min(piece, count - next);
            }
            try {
                work(begin, end, thread);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(mutex);
                if (!failure) failure = std::current_exception();
            }
        }
    };
    std::vector<std::thread> others;
    for (size_t t = 1; t < threads; ++t) others.emplace_back(run, t);
    run(0);
    for (std::thread& t : others) t.join();
    if (failure) std::rethrow_exception(failure);
}

#endif

// 64-byte aligned scratch memory, one piece per thread.
class Scratch {
  public:
    explicit Scratch(size_t bytes) : memory_(::operator new(std::max<size_t>(bytes, 64), std::align_val_t(64))) {}
    ~Scratch() { ::operator delete(memory_, std::align_val_t(64)); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    void* get() const { return memory_; }

  private:
    void* memory_;
};
