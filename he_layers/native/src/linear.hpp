// Shift-linear map of LWE rows: out_o = sum_i sign * 2^exponent * in_i modulo 2^32 (SHE, arXiv 1906.00148, section 3.1).
//
// Entries of an output stand by falling exponent; doubling the sum between them (Horner) turns every product into one addition. Sums of a
// few columns stay in registers while all entries pass by; outputs that read the same rows follow each other (LinearJob::order), so that
// those columns of the rows come from the second-level cache.
#pragma once
#include "kernel_table.hpp"
#include "simd.hpp"

namespace CS_ISA {

typedef uint32_t vwords __attribute__((vector_size(LANES * 8), aligned(4), may_alias));
constexpr size_t WORDS = sizeof(vwords) / 4;
constexpr int SUMS = 12;  // vectors side by side: with operands they fit the sixteen registers of AVX2

// VECTORS vectors of columns of one output. Entries of one exponent and sign that stand together are one loop.
template <int VECTORS>
CS_INLINE void linear_columns(const LinearJob& job, size_t o, size_t first) {
    vwords sum[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) sum[v] = vwords{};
    int exponent = 0;
    int64_t e = job.indptr[o];
    const int64_t last = job.indptr[o + 1];
    while (e < last) {
        const int fall = exponent - job.exponents[e];
        exponent = job.exponents[e];
        if (fall > 0)
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v) sum[v] <<= fall;
        for (; e < last && job.exponents[e] == exponent && job.signs[e] > 0; ++e) {
            const vwords* in = reinterpret_cast<const vwords*>(job.in + (size_t)job.indices[e] * job.width + first);
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v) sum[v] += in[v];
        }
        for (; e < last && job.exponents[e] == exponent && job.signs[e] < 0; ++e) {
            const vwords* in = reinterpret_cast<const vwords*>(job.in + (size_t)job.indices[e] * job.width + first);
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v) sum[v] -= in[v];
        }
    }
    vwords* out = reinterpret_cast<vwords*>(job.out + o * job.width + first);
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) out[v] = sum[v] << exponent;
}

// The columns from `first` on, fewer than a vector.
static void linear_rest(const LinearJob& job, size_t o, size_t first) {
    for (; first < job.width; ++first) {
        uint32_t sum = 0;
        int exponent = 0;
        for (int64_t e = job.indptr[o]; e < job.indptr[o + 1]; ++e) {
            if (exponent > job.exponents[e]) sum <<= exponent - job.exponents[e];
            exponent = job.exponents[e];
            const uint32_t word = job.in[(size_t)job.indices[e] * job.width + first];
            sum += job.signs[e] > 0 ? word : 0 - word;
        }
        job.out[o * job.width + first] = sum << exponent;
    }
}

// Outputs order[begin], ..., order[end - 1].
static void linear(const LinearJob& job, size_t begin, size_t end, void*) {
    size_t first = 0;
    for (; first + SUMS * WORDS <= job.width; first += SUMS * WORDS)
        for (size_t at = begin; at < end; ++at) linear_columns<SUMS>(job, job.order[at], first);
    for (; first + WORDS <= job.width; first += WORDS)
        for (size_t at = begin; at < end; ++at) linear_columns<1>(job, job.order[at], first);
    for (size_t at = begin; at < end; ++at) linear_rest(job, job.order[at], first);
}

}  // namespace CS_ISA
