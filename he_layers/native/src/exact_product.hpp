// acc += key * mask modulo X^N + 1 and 2^64, for a binary key given by the positions of its ones: exact by construction.
#pragma once
#include "simd.hpp"

namespace CS_ISA {

static void add_binary_product(uint64_t* acc, const uint64_t* mask, const int32_t* set_bits, size_t bits, size_t n, uint64_t* extended) {
    for (size_t j = 0; j < n; ++j) {  // X^t mask, read at n - t: the part that wraps comes back negated
        extended[j] = 0 - mask[j];
        extended[n + j] = mask[j];
    }
    constexpr size_t BLOCK = 64;  // N is a power of two of at least BLOCK
    for (size_t first = 0; first < n; first += BLOCK) {
        uint64_t sum[BLOCK];
        for (size_t j = 0; j < BLOCK; ++j) sum[j] = acc[first + j];
        for (size_t b = 0; b < bits; ++b) {
            const uint64_t* in = extended + n - set_bits[b] + first;
            for (size_t j = 0; j < BLOCK; ++j) sum[j] += in[j];
        }
        for (size_t j = 0; j < BLOCK; ++j) acc[first + j] = sum[j];
    }
}

}  // namespace CS_ISA
