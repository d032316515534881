// Key switches of whole ring elements, LANES side by side: out += sum_p sum_l digit_l(a_p) key_p,l modulo X^N + 1, a product of the kind that
// a step of the blind rotation consists of. With them ciphertexts come to share a mask (merge), and get one of their own again (split, at the
// end of blind_rotate): the packing and the unpacking key switch of "Sharing the Mask" (Bergerat et al., TCHES 2025/4), in the ring.
#pragma once
#include "fft.hpp"
#include "kernel_table.hpp"

namespace CS_ISA {

// Level `level` of the balanced digits of a polynomial on the torus, as fractions, most significant first, and their transform.
CS_INLINE void digits_to_fourier(const vd* polynomial, int base_log, size_t level, const double* twiddles, size_t m, complex_vd* z) {
    const vd* re = polynomial;
    const vd* im = re + m;
    if (level == 0) {
        const double magic = 0x1.8p52 / (double)(1ull << base_log);
        fft_forward(z, twiddles, m, [=](size_t j) { return complex_vd{round_with(re[j], magic), round_with(im[j], magic)}; });
    } else {
        fft_forward(z, twiddles, m, [=](size_t j) {
            complex_vd x{re[j], im[j]};
            for (size_t l = 0;; ++l) {
                const double magic = 0x1.8p52 / (double)(1ull << (base_log * (l + 1)));
                const complex_vd d{round_with(x.re, magic), round_with(x.im, magic)};
                if (l == level) return d;
                x.re = x.re - d.re;
                x.im = x.im - d.im;
            }
        });
    }
}

// polynomial <- polynomial + the inverse transform, modulo one.
CS_INLINE void add_from_fourier(complex_vd* z, const double* twiddles, size_t m, vd* polynomial) {
    vd* re = polynomial;
    vd* im = re + m;
    fft_inverse(z, twiddles, m, [=](size_t j, const complex_vd& y, const double* u) {
        const vd a = re[j] + y.re * u[0] - y.im * u[1], b = im[j] + y.re * u[1] + y.im * u[0];
        re[j] = a - round_with(a, 0x1.8p52);
        im[j] = b - round_with(b, 0x1.8p52);
    });
}

static uint32_t to_word(double torus) {  // |torus| <= 1/2
    return (uint32_t)(int64_t)__builtin_floor(torus * 0x1p32 + 0.5);
}

// The LWE mask of coefficient `at`, times sign.
static void extract_mask(const vd* polynomial, size_t n, size_t at, double sign, int lane, uint32_t* out) {
    for (size_t j = 0; j <= at; ++j) out[j] = to_word(sign * polynomial[at - j][lane]);
    for (size_t j = at + 1; j < n; ++j) out[j] = to_word(-sign * polynomial[n + at - j][lane]);
}

static size_t ring_switch_doubles(size_t parts, size_t columns, size_t levels, size_t n) { return parts * columns * levels * n; }

static size_t ring_switch_vectors(size_t parts, size_t columns, size_t levels, size_t n) { return (parts * levels + columns) * n; }

// Sums of products with a ring switch key [entries][N/2][columns][parts * levels][re, im].
struct RingSwitch {
    size_t parts, columns, levels, n;
    complex_vd *points, *sums;  // [parts * levels][M], [columns][M]

    RingSwitch() = default;
    RingSwitch(size_t parts, size_t columns, size_t levels, size_t n, vd* memory)
        : parts(parts), columns(columns), levels(levels), n(n), points(reinterpret_cast<complex_vd*>(memory)), sums(points + parts * levels * n / 2) {}

    void clear() const {
        for (size_t j = 0; j < columns * n / 2; ++j) sums[j] = complex_vd{};
    }

    // sums += the digits of polynomials [parts][N], times an entry of the key.
    void multiply(const vd* polynomials, int base_log, const double* twiddles, const double* key, size_t entry) const {
        const size_t m = n / 2, rows = parts * levels;
        for (size_t r = 0; r < rows; ++r) digits_to_fourier(polynomials + r / levels * n, base_log, r % levels, twiddles, m, points + r * m);
        key += entry * ring_switch_doubles(parts, columns, levels, n);
        for (size_t at = 0; at < m; ++at)
            for (size_t q = 0; q < columns; ++q) {
                complex_vd sum = sums[q * m + at];
                for (size_t r = 0; r < rows; ++r, key += 2) {
                    const complex_vd x = points[r * m + at], w = broadcast(key);
                    sum.re = sum.re + x.re * w.re - x.im * w.im;
                    sum.im = sum.im + x.re * w.im + x.im * w.re;
                }
                sums[q * m + at] = sum;
            }
    }

    // polynomials [columns][N] += the sums.
    void add_to(vd* polynomials, const double* twiddles) const {
        for (size_t q = 0; q < columns; ++q) add_from_fourier(sums + q * n / 2, twiddles, n / 2, polynomials + q * n);
    }
};

static size_t merge_scratch(const MergeJob& job) {
    const size_t n = job.polynomial_size;
    return (ring_switch_vectors(job.bodies, job.columns(), job.levels, n) + (job.bodies + job.columns()) * n) * sizeof(vd);
}

// Rows [first_group, last_group) * LANES of the result. A value's mask (a_0, ..., a_N-1) of one source is the polynomial a_0 - a_N-1 X - ... -
// a_1 X^(N-1), whose product with the key's has the inner product as its constant coefficient.
static void merge(const MergeJob& job, size_t first_group, size_t last_group, void* memory) {
    const size_t n = job.polynomial_size, k = job.glwe_dimension, in_row = job.sources * n + 1, out_row = k * n + job.bodies;
    const RingSwitch s(job.bodies, job.columns(), job.levels, n, static_cast<vd*>(memory));
    vd* const masks = static_cast<vd*>(memory) + ring_switch_vectors(job.bodies, job.columns(), job.levels, n);
    vd* const merged = masks + job.bodies * n;
    for (size_t first = first_group * LANES; first < last_group * LANES && first < job.rows(); first += LANES) {
        const size_t lanes = job.rows() - first < (size_t)LANES ? job.rows() - first : LANES;
        const auto value = [&](size_t lane, size_t body) -> const uint32_t* {  // null: there is none
            const size_t at = (first + lane) * job.bodies + body;
            return lane < lanes && at < job.count ? job.in + at * in_row : nullptr;
        };
        s.clear();
        for (size_t source = 0; source < job.sources; ++source) {
            for (size_t body = 0; body < job.bodies; ++body)
                for (size_t lane = 0; lane < (size_t)LANES; ++lane) {
                    const uint32_t* row = value(lane, body);
                    vd* to = masks + body * n;
                    if (!row) {
                        for (size_t j = 0; j < n; ++j) to[j][lane] = 0.0;
                        continue;
                    }
                    const uint32_t* mask = row + source * n;
                    to[0][lane] = (double)(int32_t)mask[0] * 0x1p-32;
                    for (size_t j = 1; j < n; ++j) to[n - j][lane] = (double)(int32_t)mask[j] * -0x1p-32;
                }
            s.multiply(masks, job.base_log, job.twiddles, job.key, source);
        }
        for (size_t j = 0; j < job.columns() * n; ++j) merged[j] = vd{};
        s.add_to(merged, job.twiddles);
        for (size_t lane = 0; lane < lanes; ++lane) {
            uint32_t* out = job.out + (first + lane) * out_row;
            for (size_t p = 0; p < k; ++p) extract_mask(merged + p * n, n, 0, 1.0, (int)lane, out + p * n);
            for (size_t body = 0; body < job.bodies; ++body) {
                const uint32_t* row = value(lane, body);
                out[k * n + body] = to_word(merged[(k + body) * n][lane]) + (row ? row[job.sources * n] : 0);
            }
        }
    }
}

}  // namespace CS_ISA
