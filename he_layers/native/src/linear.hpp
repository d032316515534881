// Shift-linear map of LWE rows: out_o = sum_i sign * 2^exponent * in_i modulo 2^32 (SHE, arXiv 1906.00148, section 3.1).
//
// Entries of an output stand by falling exponent; doubling the sum between them (Horner) turns every product into one addition.
#pragma once
#include "kernel_table.hpp"
#include "simd.hpp"

namespace CS_ISA {

constexpr size_t COLUMNS = 512;  // words of a row taken at once: the rows in use then stay in cache

static void linear(const LinearJob& job, size_t begin, size_t end, void*) {
    for (size_t first = 0; first < job.width; first += COLUMNS) {
        const size_t columns = job.width - first < COLUMNS ? job.width - first : COLUMNS;
        for (size_t o = begin; o < end; ++o) {
            uint32_t sum[COLUMNS];
            for (size_t j = 0; j < columns; ++j) sum[j] = 0;
            int exponent = 0;
            for (int64_t e = job.indptr[o]; e < job.indptr[o + 1]; ++e) {
                const uint32_t* in = job.in + (size_t)job.indices[e] * job.width + first;
                const int fall = exponent - job.exponents[e];
                exponent = job.exponents[e];
                if (fall > 0)
                    for (size_t j = 0; j < columns; ++j) sum[j] <<= fall;
                if (job.signs[e] > 0)
                    for (size_t j = 0; j < columns; ++j) sum[j] += in[j];
                else
                    for (size_t j = 0; j < columns; ++j) sum[j] -= in[j];
            }
            uint32_t* out = job.out + o * job.width + first;
            for (size_t j = 0; j < columns; ++j) out[j] = sum[j] << exponent;
        }
    }
}

}  // namespace CS_ISA
