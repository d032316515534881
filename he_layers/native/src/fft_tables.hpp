// Twiddle factors shared by every instruction set, for one polynomial size N (M = N / 2 complex points).
//
// Layout, all complex as (re, im):
//   [0, M)        forward: heap of square roots; node 2^l + b holds zeta of block b at level l of the tree X^M - i
//   [M, 2M)       inverse: node h + j holds exp(-2 pi i j / 2h), j < h, for the stage with half-size h
//   [2M, 3M)      untwist: exp(-i pi j / N)
//   [3M, 3M + 2N) powers:  exp(i pi t / N), t < 2N
#pragma once
#include <cstddef>

struct FftTables {
    static size_t doubles(size_t polynomial_size) { return 2 * (3 * (polynomial_size / 2) + 2 * polynomial_size); }
    static const double* forward(const double* t, size_t) { return t; }
    static const double* inverse(const double* t, size_t m) { return t + 2 * m; }
    static const double* untwist(const double* t, size_t m) { return t + 4 * m; }
    static const double* powers(const double* t, size_t m) { return t + 6 * m; }
};

// Built on first use per N and kept for the life of the process; thread-safe.
const double* fft_tables(size_t polynomial_size);
