// Number theoretic transform modulo a prime q = 1 mod 2N, in SEAL's order: smallest primitive 2N-th root, outputs bit-reversed
// (Longa and Naehrig, eprint 2016/504, Algorithms 1 and 2).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "refuse.hpp"

class Ntt {
  public:
    Ntt(size_t n, uint64_t q) : n_(n), q_(q) {
        if (n < 2 || n & (n - 1)) refuse("ring degree must be a power of two");
        if (q >= (1ull << 61) || (q - 1) % (2 * n)) refuse("modulus must be below 2^61 and 1 modulo 2N");
        const uint64_t root = smallest_root(), inverse = power(root, q - 2);
        int bits = __builtin_ctzll(n);
        roots_.resize(n);
        inverse_roots_.resize(n);
        uint64_t r = 1, s = 1;
        for (size_t i = 0; i < n; ++i) {
            size_t at = 0;
            for (int b = 0; b < bits; ++b) at |= ((i >> b) & 1) << (bits - 1 - b);
            roots_[at] = shoup(r);
            inverse_roots_[at] = shoup(s);
            r = multiply(r, root);
            s = multiply(s, inverse);
        }
        n_inverse_ = power(n, q - 2);
    }
    uint64_t modulus() const { return q_; }
    size_t size() const { return n_; }
    uint64_t size_inverse() const { return n_inverse_; }
    uint64_t add(uint64_t a, uint64_t b) const { return a + b >= q_ ? a + b - q_ : a + b; }
    uint64_t subtract(uint64_t a, uint64_t b) const { return a >= b ? a - b : a + q_ - b; }
    uint64_t multiply(uint64_t a, uint64_t b) const { return (uint64_t)((unsigned __int128)a * b % q_); }
    uint64_t from_signed(int64_t x) const { return x < 0 ? q_ - (uint64_t)(-x) % q_ : (uint64_t)x % q_; }

    void forward(uint64_t* x) const {
        for (size_t m = 1, t = n_ / 2; m < n_; m *= 2, t /= 2)
            for (size_t i = 0; i < m; ++i) {
                const Factor w = roots_[m + i];
                uint64_t* a = x + 2 * i * t;
                for (size_t j = 0; j < t; ++j) {
                    const uint64_t u = a[j], v = times(a[j + t], w);
                    a[j] = add(u, v);
                    a[j + t] = subtract(u, v);
                }
            }
    }
    void inverse(uint64_t* x) const {
        for (size_t m = n_ / 2, t = 1; m >= 1; m /= 2, t *= 2)
            for (size_t i = 0; i < m; ++i) {
                const Factor w = inverse_roots_[m + i];
                uint64_t* a = x + 2 * i * t;
                for (size_t j = 0; j < t; ++j) {
                    const uint64_t u = a[j], v = a[j + t];
                    a[j] = add(u, v);
                    a[j + t] = times(subtract(u, v), w);
                }
            }
        for (size_t j = 0; j < n_; ++j) x[j] = multiply(x[j], n_inverse_);
    }

  private:
    struct Factor {
        uint64_t value, quotient;  // Shoup: floor(value 2^64 / q)
    };
    Factor shoup(uint64_t w) const { return {w, (uint64_t)(((unsigned __int128)w << 64) / q_)}; }
    uint64_t times(uint64_t x, const Factor& w) const {
        const uint64_t r = x * w.value - (uint64_t)((unsigned __int128)x * w.quotient >> 64) * q_;
        return r >= q_ ? r - q_ : r;
    }
    uint64_t power(uint64_t base, uint64_t exponent) const {
        uint64_t r = 1;
        for (base %= q_; exponent; exponent >>= 1, base = multiply(base, base))
            if (exponent & 1) r = multiply(r, base);
        return r;
    }
    uint64_t smallest_root() const {
        for (uint64_t g = 2;; ++g) {
            if (g > 1000) refuse("modulus is not prime");
            const uint64_t root = power(g, (q_ - 1) / (2 * n_));
            if (power(root, n_) != q_ - 1) continue;
            uint64_t least = root, r = root;
            const uint64_t square = multiply(root, root);
            for (size_t i = 1; i < n_; ++i) {  // the primitive roots are the odd powers
                r = multiply(r, square);
                least = r < least ? r : least;
            }
            return least;
        }
    }
    size_t n_;
    uint64_t q_, n_inverse_ = 0;
    std::vector<Factor> roots_, inverse_roots_;
};
