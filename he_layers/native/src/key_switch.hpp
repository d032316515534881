// LWE key switch: out = (0, b) - sum_ij digit_ij(a_i) key_ij modulo 2^32 (CGGI, eprint 2018/421, section 4.1).
//
// A product of a digit matrix with the key, in doubles: |digit| <= base/2 and |key word| <= 2^31, so the sums stay below 2^53 and
// are exact. Blocks of key rows stay in the second-level cache while all ciphertexts of the thread pass by.
#pragma once
#include "kernel_table.hpp"
#include "simd.hpp"

#if defined(CS_AVX512)
#include <immintrin.h>
#endif

namespace CS_ISA {

constexpr size_t TILE = CS_LANES == 8 ? 12 : 4;   // ciphertexts per register tile, two vectors of key words each
constexpr size_t ROW_BLOCK = 256;
typedef int32_t vi32 __attribute__((vector_size(LANES * 4), aligned(4)));
typedef double vd_u __attribute__((vector_size(LANES * 8), aligned(8)));

static size_t key_switch_scratch(const KeySwitchJob& job) {
    return (job.count + TILE) * key_switch_tiles(job.output_dimension) * KEY_TILE * 8 + ROW_BLOCK * TILE * 8;
}

// Balanced digits of the top base_log * levels bits, most significant first, as the key rows stand; returns what rounding took away.
// A digit of base/2 takes the sign that makes the next one smaller (the first, where both are the same word, that of the lowest bit),
// so digits have mean zero: a mean would turn the key's fixed noise into an offset common to all ciphertexts.
static inline int32_t decompose_word(uint32_t a, int base_log, int levels, int32_t* digits) {
    const int dropped = 32 - base_log * levels;
    const uint32_t base = 1u << base_log;
    uint32_t x = (a >> dropped) + ((a >> (dropped - 1)) & 1u);
    const int32_t error = (int32_t)(a - (x << dropped));
    for (int level = levels - 1; level >= 0; --level) {
        const uint32_t d = x & (base - 1);
        x >>= base_log;
        const bool next_is_high = level ? (x & (base - 1)) >= base / 2 : a & 1u;
        const bool carry = d > base / 2 || (d == base / 2 && next_is_high);
        digits[level] = (int32_t)d - (carry ? (int32_t)base : 0);
        x += carry;
    }
    return error;
}

CS_INLINE vd to_doubles(const int32_t* words) {
#if defined(CS_AVX512)
    return (vd)_mm512_cvtepi32_pd(_mm256_loadu_si256((const __m256i*)words));  // GCC makes two halves of the portable form
#else
    return __builtin_convertvector(*(const vi32*)words, vd);
#endif
}

// acc [TILE][KEY_TILE] -= digits [rows][TILE] times key [rows][KEY_TILE]
CS_INLINE void tile_product(const double* digits, const int32_t* key, size_t rows, double* acc,
                                                               size_t stride) {
    constexpr size_t STEP = 2 * LANES;
    for (size_t j = 0; j < KEY_TILE; j += STEP) {
        vd sum[TILE][2];
#pragma GCC unroll 16
        for (size_t t = 0; t < TILE; ++t) {
            sum[t][0] = *(const vd_u*)(acc + t * stride + j);
            sum[t][1] = *(const vd_u*)(acc + t * stride + j + LANES);
        }
        for (size_t r = 0; r < rows; ++r) {
            const vd k0 = to_doubles(key + r * KEY_TILE + j), k1 = to_doubles(key + r * KEY_TILE + j + LANES);
#pragma GCC unroll 16
            for (size_t t = 0; t < TILE; ++t) {
                const double d = digits[r * TILE + t];
                sum[t][0] = sum[t][0] - d * k0;
                sum[t][1] = sum[t][1] - d * k1;
            }
        }
#pragma GCC unroll 16
        for (size_t t = 0; t < TILE; ++t) {
            *(vd_u*)(acc + t * stride + j) = sum[t][0];
            *(vd_u*)(acc + t * stride + j + LANES) = sum[t][1];
        }
    }
}

static void key_switch(const KeySwitchJob& job, size_t begin, size_t end, void* memory) {
    const size_t key_tiles = key_switch_tiles(job.output_dimension), stride = key_tiles * KEY_TILE, n1 = job.output_dimension + 1, count = end - begin;
    const size_t per_word = job.levels, words = ROW_BLOCK / per_word, tiles = (count + TILE - 1) / TILE;
    double* acc = static_cast<double*>(memory);
    double* digits = acc + tiles * TILE * stride;
    for (size_t x = 0; x < tiles * TILE * stride; ++x) acc[x] = 0;
    for (size_t c = 0; c < count; ++c) job.out[(begin + c) * n1 + n1 - 1] = 0;
    for (size_t word = 0; word < job.input_dimension; word += words) {
        const size_t here = job.input_dimension - word < words ? job.input_dimension - word : words, rows = here * per_word;
        for (size_t tile = 0; tile < tiles; ++tile) {
            for (size_t t = 0; t < TILE; ++t) {
                size_t at = begin + tile * TILE + t;
                if (at >= end) at = end - 1;
                const uint32_t* row = job.in + at * (job.input_dimension + 1) + word;
                int64_t error = 0;
                for (size_t w = 0; w < here; ++w) {
                    int32_t d[32];
                    error += decompose_word(row[w], job.base_log, job.levels, d);
                    for (size_t level = 0; level < per_word; ++level) digits[(w * per_word + level) * TILE + t] = d[level];
                }
                // What rounding took from the mask comes back times the key: half of it, on average, for a binary key.
                if (job.binary_key && tile * TILE + t < count) job.out[at * n1 + n1 - 1] -= (uint32_t)(error >> 1);
            }
            for (size_t k = 0; k < key_tiles; ++k) {
                const uint32_t* key = job.key + (k * job.input_dimension + word) * per_word * KEY_TILE;
                tile_product(digits, (const int32_t*)key, rows, acc + tile * TILE * stride + k * KEY_TILE, stride);
            }
        }
    }
    for (size_t c = 0; c < count; ++c) {
        uint32_t* out = job.out + (begin + c) * n1;
        for (size_t j = 0; j + 1 < n1; ++j) out[j] = (uint32_t)(int64_t)acc[c * stride + j];
        out[n1 - 1] += (uint32_t)(int64_t)acc[c * stride + n1 - 1] + job.in[(begin + c) * (job.input_dimension + 1) + job.input_dimension];
    }
}

}  // namespace CS_ISA
