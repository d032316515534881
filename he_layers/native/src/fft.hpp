// Negacyclic Fourier transform of real polynomials modulo X^N + 1, LANES polynomials side by side.
//
// A real polynomial c is folded into M = N/2 complex points z_j = c_j + i c_{j+M}; evaluating z at the M roots of X^M - i
// turns products modulo X^N + 1 into pointwise products (Klemsa, eprint 2021/480, section 3).
// Forward: Cooley-Tukey on the tree X^M - i = (X^{M/2} - zeta)(X^{M/2} + zeta) ..., output in bit-reversed order: point m is
// exp(i pi (1 + 4 brv(m)) / N). Inverse: decimation in time from that order, then an untwist. Every butterfly is six fused
// multiply-adds: out+ = u + w v, out- = 2u - out+. No normalization: inverse(forward(z)) = M z.
#pragma once
#include "fft_tables.hpp"
#include "simd.hpp"

namespace CS_ISA {

// (u, v) <- (u + w v, u - w v).
CS_INLINE void butterfly(complex_vd& u, complex_vd& v, const complex_vd& w) {
    const vd re = u.re + v.re * w.re - v.im * w.im, im = u.im + v.re * w.im + v.im * w.re;
    v.re = 2.0 * u.re - re;
    v.im = 2.0 * u.im - im;
    u.re = re;
    u.im = im;
}

// The butterflies of twiddles 1 and -i, which need no product.
CS_INLINE void butterfly_one(complex_vd& u, complex_vd& v) {
    const complex_vd x = u;
    u = {x.re + v.re, x.im + v.im};
    v = {x.re - v.re, x.im - v.im};
}

CS_INLINE void butterfly_minus_i(complex_vd& u, complex_vd& v) {
    const complex_vd x = u;
    u = {x.re + v.im, x.im - v.re};
    v = {x.re - v.im, x.im + v.re};
}

// The P - 1 twiddles of LEVELS tree levels on P = 2^LEVELS points; block b of level l stands at 2^l - 1 + b.
template <int LEVELS>
CS_INLINE void forward_twiddles(complex_vd* w, const double* table, size_t level_start, size_t block) {
#pragma GCC unroll 8
    for (int l = 0; l < LEVELS; ++l)
#pragma GCC unroll 8
        for (int b = 0; b < (1 << l); ++b) w[(1 << l) - 1 + b] = broadcast(table + 2 * ((level_start << l) + (block << l) + b));
}

template <int LEVELS>
CS_INLINE void forward_points(complex_vd* x, const complex_vd* w) {
    constexpr int P = 1 << LEVELS;
#pragma GCC unroll 8
    for (int l = 0; l < LEVELS; ++l) {
        const int half = P >> (l + 1);
#pragma GCC unroll 8
        for (int b = 0; b < (1 << l); ++b)
#pragma GCC unroll 8
            for (int t = 0; t < half; ++t) butterfly(x[b * 2 * half + t], x[b * 2 * half + t + half], w[(1 << l) - 1 + b]);
    }
}

// The twiddles of LEVELS decimation-in-time stages, the first of half-size h, on points j + t h; those of stage l stand at 2^l - 1.
template <int LEVELS>
CS_INLINE void inverse_twiddles(complex_vd* w, const double* table, size_t h, size_t j) {
#pragma GCC unroll 8
    for (int l = 0; l < LEVELS; ++l)
#pragma GCC unroll 8
        for (int t = 0; t < (1 << l); ++t) w[(1 << l) - 1 + t] = broadcast(table + 2 * ((h << l) + j + (size_t)t * h));
}

// FIRST: h = 1, j = 0.
template <int LEVELS, bool FIRST>
CS_INLINE void inverse_points(complex_vd* x, const complex_vd* w) {
    constexpr int P = 1 << LEVELS;
#pragma GCC unroll 8
    for (int l = 0; l < LEVELS; ++l) {
        const int half = 1 << l;
#pragma GCC unroll 8
        for (int g = 0; g < P; g += 2 * half)
#pragma GCC unroll 8
            for (int t = 0; t < half; ++t) {
                if (FIRST && t == 0) butterfly_one(x[g + t], x[g + t + half]);
                else if (FIRST && 2 * t == half) butterfly_minus_i(x[g + t], x[g + t + half]);
                else butterfly(x[g + t], x[g + t + half], w[half - 1 + t]);
            }
    }
}

template <int LEVELS>
CS_INLINE void load_points(complex_vd* x, const complex_vd* z, size_t stride) {
#pragma GCC unroll 8
    for (int t = 0; t < (1 << LEVELS); ++t) {
        x[t].re = keep_in_register(z[t * stride].re);
        x[t].im = keep_in_register(z[t * stride].im);
    }
}

template <int LEVELS>
CS_INLINE void store_points(complex_vd* z, const complex_vd* x, size_t stride) {
#pragma GCC unroll 8
    for (int t = 0; t < (1 << LEVELS); ++t) {
        z[t * stride].re = x[t].re;
        z[t * stride].im = x[t].im;
    }
}

template <int LEVELS>
static void forward_pass(complex_vd* z, const double* table, size_t m, size_t level_start) {
    const size_t size = m / level_start, stride = size >> LEVELS;
    for (size_t b = 0; b < level_start; ++b) {
        complex_vd w[(1 << LEVELS) - 1];
        forward_twiddles<LEVELS>(w, table, level_start, b);
        for (size_t j = 0; j < stride; ++j) {
            complex_vd x[1 << LEVELS];
            load_points<LEVELS>(x, z + b * size + j, stride);
            forward_points<LEVELS>(x, w);
            store_points<LEVELS>(z + b * size + j, x, stride);
        }
    }
}

template <int LEVELS, bool FIRST>
static void inverse_pass(complex_vd* z, const double* table, size_t m, size_t h) {
    const size_t size = h << LEVELS;
    for (size_t g = 0; g < m; g += size)
        for (size_t j = 0; j < h; ++j) {
            complex_vd x[1 << LEVELS], w[(1 << LEVELS) - 1];
            inverse_twiddles<LEVELS>(w, table, h, j);
            load_points<LEVELS>(x, z + g + j, h);
            inverse_points<LEVELS, FIRST>(x, w);
            store_points<LEVELS>(z + g + j, x, h);
        }
}

// Levels of one pass over the points, as many as the registers hold: of `left` levels, the next pass takes so many.
constexpr int RADIX = LANES == 8 ? 3 : 2;
CS_INLINE int next_levels(int left) { return left % RADIX == 0 ? RADIX : left == 1 ? 1 : 2; }

// The first forward pass reads its points through `source(j)`, so that a decomposition costs no pass of its own.
template <class Source>
CS_INLINE void fft_forward(complex_vd* z, const double* tables, size_t m, Source source) {
    const double* table = FftTables::forward(tables, m);
    const size_t stride = m >> RADIX;
    complex_vd w[(1 << RADIX) - 1];
    forward_twiddles<RADIX>(w, table, 1, 0);
    for (size_t j = 0; j < stride; ++j) {
        complex_vd x[1 << RADIX];
#pragma GCC unroll 8
        for (int t = 0; t < (1 << RADIX); ++t) x[t] = source(j + t * stride);
        forward_points<RADIX>(x, w);
        store_points<RADIX>(z + j, x, stride);
    }
    for (size_t level_start = 1 << RADIX; level_start < m;) {
        const int levels = next_levels(__builtin_ctzll(m / level_start));
        if (levels == RADIX) forward_pass<RADIX>(z, table, m, level_start);
        else if (levels == 2) forward_pass<2>(z, table, m, level_start);
        else forward_pass<1>(z, table, m, level_start);
        level_start <<= levels;
    }
}

// The last inverse pass hands its points to `sink(j, y_j, untwist_j)`; z_j = y_j * untwist_j / M.
template <class Sink>
CS_INLINE void fft_inverse(complex_vd* z, const double* tables, size_t m, Sink sink) {
    const double* table = FftTables::inverse(tables, m);
    const double* untwist = FftTables::untwist(tables, m);
    const size_t last = m >> RADIX;
    for (size_t h = 1; h < last;) {
        const int levels = next_levels(__builtin_ctzll(last / h));
        if (h == 1 && levels == RADIX) inverse_pass<RADIX, true>(z, table, m, h);
        else if (levels == RADIX) inverse_pass<RADIX, false>(z, table, m, h);
        else if (levels == 2) inverse_pass<2, false>(z, table, m, h);
        else inverse_pass<1, false>(z, table, m, h);
        h <<= levels;
    }
    for (size_t j = 0; j < last; ++j) {
        complex_vd x[1 << RADIX], w[(1 << RADIX) - 1];
        inverse_twiddles<RADIX>(w, table, last, j);
        load_points<RADIX>(x, z + j, last);
        inverse_points<RADIX, false>(x, w);
#pragma GCC unroll 8
        for (int t = 0; t < (1 << RADIX); ++t) sink(j + t * last, x[t], untwist + 2 * (j + t * last));
    }
}

}  // namespace CS_ISA
