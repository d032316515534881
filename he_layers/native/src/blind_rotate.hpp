// Blind rotation and sample extraction for LANES ciphertexts side by side (CGGI, eprint 2018/421, Algorithm 9).
//
// The accumulator is kept as doubles on the torus in [-1/2, 1/2): decomposition and reduction are then roundings, the same
// on every instruction set. Each step adds IFFT((X^a - 1) . sum_r FFT(digit_r) . key_r): the rotation is a pointwise product,
// so no coefficient is ever gathered; it doubles the noise variance of the external product, which is far below the
// key switch's (docs/decisions/0002-rotate-in-the-fourier-domain.md).
//
// A step may take several bits of the key, so that their products share one decomposition and one set of transforms:
// - two uniform bits s, t with exponents a, b, by three keys (docs/decisions/0050-two-key-bits-at-a-time.md):
//     X^(a s + b t) = 1 + (X^a - 1) s (1 - t) + (X^b - 1) (1 - s) t + (X^(a + b) - 1) s t;
// - a block of l bits s_c of which at most one is 1, by l keys (Lee, Min, Seo, Song, eprint 2023/958):
//     X^(sum_c a_c s_c) = 1 + sum_c (X^a_c - 1) s_c; a single bit is a block of one.
//
// Ciphertexts that share a mask have the exponents in common. Each body turns by bits of its own, which the key's rows hold for it: the
// row of mask polynomial p has the phase -s_j S_j,p under the key of body j, the row of body j has s_j there and 0 under the other keys.
// At the end each body but the first is switched to the key of the first, so that every result is an ordinary ciphertext under it.
#pragma once
#include "ring_switch.hpp"

namespace CS_ISA {

constexpr size_t LOW = 16;  // a rotation factor is the product of one of LOW and one of M / LOW table entries

constexpr int MOST_STEP_BITS = 4;

struct RotateScratch {
    complex_vd* points;                                        // [columns * levels][M]
    RingSwitch split;                                          // where ciphertexts share masks
    vd* body;                                                  // [k + 1][N]: one of them by itself
    complex_vd *low[MOST_STEP_BITS], *high[MOST_STEP_BITS];    // [LOW], [M / LOW]: of each of a step's exponents
    vd* accumulators;                                          // [groups][columns][N]
};

static size_t ggsw_doubles(const BlindRotateJob& job) { return job.columns() * job.columns() * job.levels * job.polynomial_size; }

static size_t group_vectors(const BlindRotateJob& job) { return job.columns() * job.polynomial_size; }

static size_t blind_rotate_points(const BlindRotateJob& job) { return job.columns() * job.levels * job.polynomial_size / 2; }

static size_t split_vectors(const BlindRotateJob& job) {
    if (job.bodies == 1) return 0;
    return ring_switch_vectors(1, job.glwe_dimension + 1, job.levels, job.polynomial_size) + (job.glwe_dimension + 1) * job.polynomial_size;
}

static size_t blind_rotate_scratch(const BlindRotateJob& job) {
    const size_t factors = job.step_bits * (LOW + job.polynomial_size / 2 / LOW);
    return (2 * (blind_rotate_points(job) + factors) + split_vectors(job) + MAX_GROUPS * group_vectors(job)) * sizeof(vd);
}

static RotateScratch carve(const BlindRotateJob& job, void* scratch) {
    const size_t m = job.polynomial_size / 2;
    RotateScratch s{};
    s.points = static_cast<complex_vd*>(scratch);
    complex_vd* factors = s.points + blind_rotate_points(job);
    for (int bit = 0; bit < job.step_bits; ++bit, factors += LOW + m / LOW) {
        s.low[bit] = factors;
        s.high[bit] = factors + LOW;
    }
    vd* rest = reinterpret_cast<vd*>(factors);
    if (job.bodies > 1) {
        s.split = RingSwitch(1, job.glwe_dimension + 1, job.levels, job.polynomial_size, rest);
        s.body = rest + ring_switch_vectors(1, job.glwe_dimension + 1, job.levels, job.polynomial_size);
    }
    s.accumulators = rest + split_vectors(job);
    return s;
}

static unsigned reverse_bits(unsigned x, int bits) {
    unsigned r = 0;
    for (int i = 0; i < bits; ++i) r |= ((x >> i) & 1u) << (bits - 1 - i);
    return r;
}

// Tables for X^a, a being word i of each lane's ciphertext: point m = high * LOW + low stands at exp(i pi (1 + 4 brv(m)) / N), and bit
// reversal is additive over the two parts.
static void rotation_factors(const BlindRotateJob& job, const int32_t* const* switched, size_t i, complex_vd* low, complex_vd* high) {
    const size_t m = job.polynomial_size / 2, mask = 2 * job.polynomial_size - 1;
    const double* powers = FftTables::powers(job.twiddles, m);
    const int bits = __builtin_ctzll(m), low_bits = __builtin_ctzll(LOW);
    for (int lane = 0; lane < LANES; ++lane) {
        const size_t a = (size_t)switched[lane][i];
        for (size_t l = 0; l < LOW; ++l) {
            const double* p = powers + 2 * ((a * 4 * reverse_bits(l, low_bits) << (bits - low_bits)) & mask);
            low[l].re[lane] = p[0];
            low[l].im[lane] = p[1];
        }
        for (size_t h = 0; h < m / LOW; ++h) {
            const double* p = powers + 2 * (a * (1 + 4 * reverse_bits(h, bits - low_bits)) & mask);
            high[h].re[lane] = p[0];
            high[h].im[lane] = p[1];
        }
    }
}

// X^a_c - 1 at one point for each of BITS exponents; for a pair X^a - 1, X^b - 1, X^(a + b) - 1.
template <int BITS, int KEYS>
CS_INLINE void step_factors(const RotateScratch& s, size_t l, size_t h, complex_vd* f) {
    static_assert(KEYS == BITS || (BITS == 2 && KEYS == 3));
#pragma GCC unroll 4
    for (int c = 0; c < BITS; ++c) f[c] = times(s.low[c][l], s.high[c][h]);
    if constexpr (KEYS > BITS) f[2] = times(f[0], f[1]);
#pragma GCC unroll 4
    for (int c = 0; c < KEYS; ++c) f[c].re = f[c].re - 1.0;
}

// out[q] <- sum_c sum_r y[c][r] * key_c[q][r] for COUNT outputs side by side, so that no sum waits for its last term alone.
template <int ROWS, int KEYS, int COUNT>
CS_INLINE void multiply_outputs(const complex_vd* y, const double* key, size_t key_stride, complex_vd* out, size_t m) {
    vd re[COUNT], im[COUNT];
#pragma GCC unroll 8
    for (int q = 0; q < COUNT; ++q) re[q] = im[q] = vd{};
    for (int c = 0; c < KEYS; ++c, key += key_stride, y += ROWS)
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const vd yr = keep_in_register(y[r].re), yi = keep_in_register(y[r].im);
#pragma GCC unroll 8
            for (int q = 0; q < COUNT; ++q) {
                const complex_vd w = broadcast(key + 2 * (q * ROWS + r));
                re[q] = re[q] + yr * w.re - yi * w.im;
                im[q] = im[q] + yr * w.im + yi * w.re;
            }
        }
#pragma GCC unroll 8
    for (int q = 0; q < COUNT; ++q) {
        out[q * m].re = re[q];
        out[q * m].im = im[q];
    }
}

// points[q][m] <- sum_c sum_r factor_c[m] * points[r][m] * key_c[m][q][r], in place; without ROTATE all factors are 1.
template <int COLUMNS, int LEVELS, int BITS, int KEYS, bool ROTATE>
static void multiply_keys(complex_vd* points, size_t m, const RotateScratch& s, const double* key, size_t key_stride) {
    constexpr int ROWS = COLUMNS * LEVELS;
    constexpr int SIDE_BY_SIDE = COLUMNS == 6 ? 6 : 5, LAST = COLUMNS % SIDE_BY_SIDE;  // ten or twelve sums and two factors fill the registers of AVX2
    for (size_t h = 0; h < m / LOW; ++h)
        for (size_t l = 0; l < LOW; ++l, key += 2 * COLUMNS * ROWS) {
            const size_t at = h * LOW + l;
            complex_vd f[KEYS], y[KEYS * ROWS];
            if (ROTATE) step_factors<BITS, KEYS>(s, l, h, f);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                const vd re = keep_in_register(points[r * m + at].re), im = keep_in_register(points[r * m + at].im);
#pragma GCC unroll 4
                for (int c = 0; c < KEYS; ++c) {
                    y[c * ROWS + r].re = ROTATE ? re * f[c].re - im * f[c].im : re;
                    y[c * ROWS + r].im = ROTATE ? re * f[c].im + im * f[c].re : im;
                }
            }
            int q = 0;
            for (; q + SIDE_BY_SIDE <= COLUMNS; q += SIDE_BY_SIDE)
                multiply_outputs<ROWS, KEYS, SIDE_BY_SIDE>(y, key + 2 * ROWS * q, key_stride, points + q * m + at, m);
            if (LAST) multiply_outputs<ROWS, KEYS, LAST ? LAST : 1>(y, key + 2 * ROWS * q, key_stride, points + q * m + at, m);
        }
}

template <int BITS, int KEYS, bool ROTATE>
static void multiply_keys_any(const BlindRotateJob& job, const RotateScratch& s, const double* key) {
    const size_t m = job.polynomial_size / 2, stride = ggsw_doubles(job);
#define CS_SHAPE(COLUMNS, LEVELS) \
    case (COLUMNS) * 100 + (LEVELS): return multiply_keys<COLUMNS, LEVELS, BITS, KEYS, ROTATE>(s.points, m, s, key, stride);
    switch (job.columns() * 100 + job.levels) { CS_ROTATION_SHAPES }
#undef CS_SHAPE
}

template <bool ROTATE>
static void multiply_step(const BlindRotateJob& job, const RotateScratch& s, const double* key) {
    switch (job.step_bits * 10 + job.step_keys) {
        case 11: return multiply_keys_any<1, 1, ROTATE>(job, s, key);
        case 22: return multiply_keys_any<2, 2, ROTATE>(job, s, key);
        case 23: return multiply_keys_any<2, 3, ROTATE>(job, s, key);
        case 33: return multiply_keys_any<3, 3, ROTATE>(job, s, key);
        case 44: return multiply_keys_any<4, 4, ROTATE>(job, s, key);
    }
}

// One step of the blind rotation: acc <- acc + sum_c factor_c (acc [] ggsw_c).
static void rotate_step(const BlindRotateJob& job, vd* acc, RotateScratch& s, const double* key) {
    const size_t n = job.polynomial_size, m = n / 2, columns = job.columns(), levels = job.levels;
    for (size_t p = 0; p < columns; ++p)
        for (size_t level = 0; level < levels; ++level)
            digits_to_fourier(acc + p * n, job.base_log, level, job.twiddles, m, s.points + (p * levels + level) * m);
    multiply_step<true>(job, s, key);
    for (size_t q = 0; q < columns; ++q) add_from_fourier(s.points + q * m, job.twiddles, m, acc + q * n);
}

// acc <- (0, ..., 0, X^-b v) for each body b: v_t is read at index t + b, negated past N.
static void load_tables(const BlindRotateJob& job, const size_t* rows, vd* acc) {
    const size_t n = job.polynomial_size, k = job.glwe_dimension, width = job.lwe_dimension + job.bodies;
    for (size_t j = 0; j < k * n; ++j) acc[j] = vd{};
    for (int lane = 0; lane < LANES; ++lane)
        for (size_t body = 0; body < job.bodies; ++body) {
            const size_t b = (size_t)job.switched[rows[lane] * width + job.lwe_dimension + body], value = rows[lane] * job.bodies + body;
            const double* table = job.tables + (size_t)job.table_index[value < job.count ? value : job.count - 1] * n;
            vd* to = acc + (k + body) * n;
            for (size_t t = 0; t < n; ++t) {
                const size_t at = (t + b) & (2 * n - 1);
                to[t][lane] = at < n ? table[at] : -table[at - n];
            }
        }
}

// The constant coefficient of X^-place times a ciphertext of k masks and a body, as an LWE ciphertext; place in [0, 2N).
static void extract(const BlindRotateJob& job, const vd* masks, const vd* body, int lane, size_t place, uint32_t* out) {
    const size_t n = job.polynomial_size, k = job.glwe_dimension, at = place & (n - 1);
    const double sign = place < n ? 1.0 : -1.0;
    for (size_t p = 0; p < k; ++p) extract_mask(masks + p * n, n, at, sign, lane, out + p * n);
    out[k * n] = to_word(sign * body[at][lane]);
}

// Every body of an accumulator as ciphertexts under the first key.
static void extract_bodies(const BlindRotateJob& job, const vd* acc, const RotateScratch& s, const size_t* rows) {
    const size_t n = job.polynomial_size, k = job.glwe_dimension, out_row = k * n + 1;
    for (size_t body = 0; body < job.bodies; ++body) {
        const vd* masks = acc;
        const vd* last = acc + (k + body) * n;
        if (body) {
            for (size_t j = 0; j < k * n; ++j) s.body[j] = vd{};
            for (size_t j = 0; j < n; ++j) s.body[k * n + j] = last[j];
            const double* key = job.split_key + (body - 1) * k * ring_switch_doubles(1, k + 1, job.levels, n);
            s.split.clear();
            for (size_t p = 0; p < k; ++p) s.split.multiply(acc + p * n, job.base_log, job.twiddles, key, p);
            s.split.add_to(s.body, job.twiddles);
            masks = s.body;
            last = s.body + k * n;
        }
        for (int lane = 0; lane < LANES; ++lane) {
            const size_t value = rows[lane] * job.bodies + body;
            if (value >= job.count || (lane && rows[lane] == rows[lane - 1])) continue;
            extract(job, masks, last, lane, 0, job.out + value * out_row);
            if (job.second) extract(job, masks, last, lane, (size_t)job.second[job.table_index[value]], job.out + (job.count + value) * out_row);
        }
    }
}

// The whole job's share [first_group, last_group): each step of the key is read once for all of it.
static void blind_rotate(const BlindRotateJob& job, size_t first_group, size_t last_group, void* memory) {
    RotateScratch s = carve(job, memory);
    const size_t width = job.lwe_dimension + job.bodies, groups = last_group - first_group;
    const size_t step_doubles = job.step_keys * ggsw_doubles(job), together = job.step_bits;
    size_t rows[MAX_GROUPS][LANES];
    const int32_t* lanes[MAX_GROUPS][LANES];
    for (size_t g = 0; g < groups; ++g) {
        for (int lane = 0; lane < LANES; ++lane) {  // the last group repeats the last row in its idle lanes
            const size_t at = (first_group + g) * LANES + lane;
            rows[g][lane] = at < job.rows ? at : job.rows - 1;
            lanes[g][lane] = job.switched + rows[g][lane] * width;
        }
        load_tables(job, rows[g], s.accumulators + g * group_vectors(job));
    }
    for (size_t i = 0; i < job.lwe_dimension / together; ++i)
        for (size_t g = 0; g < groups; ++g) {
            for (size_t bit = 0; bit < together; ++bit) rotation_factors(job, lanes[g], i * together + bit, s.low[bit], s.high[bit]);
            rotate_step(job, s.accumulators + g * group_vectors(job), s, job.fourier_bsk + i * step_doubles);
        }
    for (size_t g = 0; g < groups; ++g) extract_bodies(job, s.accumulators + g * group_vectors(job), s, rows[g]);
}

// The arithmetic that one bootstrap cannot do without: columns (levels + 1) transforms for each step and the products with its keys, on one
// resident set of points; no decomposition, no rotation, one step's keys. What is above it is data movement and rounding.
static void bootstrap_floor(const BlindRotateJob& job, size_t groups, void* memory) {
    RotateScratch s = carve(job, memory);
    const size_t m = job.polynomial_size / 2, columns = job.columns();
    for (size_t j = 0; j < blind_rotate_points(job); ++j) s.points[j] = complex_vd{};
    for (size_t i = 0; i < job.lwe_dimension / job.step_bits; ++i)
        for (size_t g = 0; g < groups; ++g) {
            for (size_t p = 0; p < columns * job.levels; ++p) {
                complex_vd* z = s.points + p * m;
                fft_forward(z, job.twiddles, m, [=](size_t j) { return complex_vd{z[j].re, z[j].im}; });
            }
            multiply_step<false>(job, s, job.fourier_bsk);
            for (size_t q = 0; q < columns; ++q) {
                complex_vd* z = s.points + q * m;
                fft_inverse(z, job.twiddles, m, [=](size_t j, const complex_vd& y, const double*) {
                    z[j].re = y.re;
                    z[j].im = y.im;
                });
            }
        }
}

// words: [rows][columns][N] -> out: [N/2][columns][rows][re, im], scaled so that digits are fractions and no 1/M is left.
static void rows_to_fourier(const uint64_t* words, size_t rows, size_t columns, size_t n, int base_log, int levels, const double* twiddles,
                            void* scratch, double* out) {
    const size_t m = n / 2, polynomials = rows * columns;
    complex_vd* z = static_cast<complex_vd*>(scratch);
    for (size_t first = 0; first < polynomials; first += LANES) {
        const size_t lanes = polynomials - first < (size_t)LANES ? polynomials - first : LANES;
        fft_forward(z, twiddles, m, [=](size_t j) {
            complex_vd x{};
            for (size_t lane = 0; lane < lanes; ++lane) {
                const uint64_t* poly = words + (first + lane) * n;
                x.re[lane] = (double)(int64_t)poly[j] * 0x1p-64;
                x.im[lane] = (double)(int64_t)poly[j + m] * 0x1p-64;
            }
            return x;
        });
        for (size_t lane = 0; lane < lanes; ++lane) {
            const size_t r = (first + lane) / columns, q = (first + lane) % columns, level = r % levels;
            const double scale = (double)(1ull << (base_log * (level + 1))) / (double)m;
            for (size_t at = 0; at < m; ++at) {
                double* target = out + 2 * ((at * columns + q) * rows + r);
                target[0] = z[at].re[lane] * scale;
                target[1] = z[at].im[lane] * scale;
            }
        }
    }
}

// Negacyclic product of LANES pairs [lane][N]: the transform alone, for tests.
static void negacyclic_product(const double* a, const double* b, size_t n, const double* twiddles, void* scratch, double* out) {
    const size_t m = n / 2;
    complex_vd* x = static_cast<complex_vd*>(scratch);
    complex_vd* y = x + m;
    const double* in[2] = {a, b};
    for (int side = 0; side < 2; ++side) {
        const double* poly = in[side];
        fft_forward(side ? y : x, twiddles, m, [=](size_t j) {
            complex_vd v{};
            for (int lane = 0; lane < LANES; ++lane) {
                v.re[lane] = poly[lane * n + j];
                v.im[lane] = poly[lane * n + j + m];
            }
            return v;
        });
    }
    for (size_t j = 0; j < m; ++j) x[j] = times(x[j], y[j]);
    const double scale = 1.0 / (double)m;
    fft_inverse(x, twiddles, m, [=](size_t j, const complex_vd& v, const double* u) {
        const vd re = (v.re * u[0] - v.im * u[1]) * scale, im = (v.re * u[1] + v.im * u[0]) * scale;
        for (int lane = 0; lane < LANES; ++lane) {
            out[lane * n + j] = re[lane];
            out[lane * n + j + m] = im[lane];
        }
    });
}

}  // namespace CS_ISA
