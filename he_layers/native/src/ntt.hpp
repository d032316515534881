// Number theoretic transform modulo a prime q = 1 mod 2N, in SEAL's order: smallest primitive 2N-th root, outputs bit-reversed
// (Longa and Naehrig, eprint 2016/504, Algorithms 1 and 2): slot i holds the value at root^exponent(i).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "refuse.hpp"

class Ntt {
  public:
    struct Factor {
        uint64_t value, quotient;  // Shoup: floor(value 2^64 / q)
    };
    Ntt(size_t n, uint64_t q) : n_(n), q_(q) {
        if (n < 2 || n & (n - 1)) refuse("ring degree must be a power of two");
        if (q >= (1ull << 61) || (q - 1) % (2 * n)) refuse("modulus must be below 2^61 and 1 modulo 2N");
        bits_ = 64 - __builtin_clzll(q);
        reciprocal_ = (uint64_t)(((unsigned __int128)1 << 2 * bits_) / q);
        const uint64_t root = smallest_root(), inverse = power(root, q - 2);
        const int depth = __builtin_ctzll(n);
        reversed_.resize(n);
        roots_.resize(n);
        inverse_roots_.resize(n);
        uint64_t r = 1, s = 1;
        for (size_t i = 0; i < n; ++i) {
            size_t at = 0;
            for (int b = 0; b < depth; ++b) at |= ((i >> b) & 1) << (depth - 1 - b);
            reversed_[i] = (uint32_t)at;
            roots_[at] = shoup(r);
            inverse_roots_[at] = shoup(s);
            r = multiply(r, root);
            s = multiply(s, inverse);
        }
        n_inverse_ = shoup(power(n, q - 2));
    }
    uint64_t modulus() const { return q_; }
    size_t size() const { return n_; }
    size_t exponent(size_t slot) const { return 2 * reversed_[slot] + 1; }
    size_t slot(size_t exponent) const { return reversed_[exponent / 2]; }
    const Factor& root(size_t power) const { return roots_[reversed_[power]]; }  // root^power, power < N
    uint64_t add(uint64_t a, uint64_t b) const { return less(a + b, q_); }
    uint64_t subtract(uint64_t a, uint64_t b) const { return less(a + q_ - b, q_); }
    // Barrett's reduction: the quotient is found from the product's upper bits, at most two too small.
    uint64_t multiply(uint64_t a, uint64_t b) const {
        const unsigned __int128 product = (unsigned __int128)a * b;
        const uint64_t quotient = (uint64_t)((unsigned __int128)(uint64_t)(product >> (bits_ - 1)) * reciprocal_ >> (bits_ + 1));
        return less(less((uint64_t)product - quotient * q_, 2 * q_), q_);
    }
    uint64_t over_size(uint64_t x) const { return times(x, n_inverse_); }  // x / N
    uint64_t from_signed(int64_t x) const {
        const uint64_t size = x < 0 ? -(uint64_t)x : (uint64_t)x, rest = size < q_ ? size : size % q_;
        return x < 0 && rest ? q_ - rest : rest;
    }
    // round(x 2^bits / q), x < q, 2^bits < q.
    uint64_t upper_bits(uint64_t x, const Factor& power) const {
        uint64_t quotient = (uint64_t)((unsigned __int128)x * power.quotient >> 64), rest = x * power.value - quotient * q_;
        if (rest >= q_) rest -= q_, ++quotient;
        return quotient + (rest > q_ / 2);
    }

    // Both transforms reduce late (Harvey, arXiv 1205.2926, section 4): below 4q on the way forward, below 2q on the way back.
    void forward(uint64_t* x) const {
        for (size_t m = 1, t = n_ / 2; m < n_; m *= 2, t /= 2)
            for (size_t i = 0; i < m; ++i) {
                const Factor w = roots_[m + i];
                uint64_t* a = x + 2 * i * t;
                for (size_t j = 0; j < t; ++j) {
                    const uint64_t u = less(a[j], 2 * q_), v = late(a[j + t], w);
                    a[j] = u + v;
                    a[j + t] = u + 2 * q_ - v;
                }
            }
        for (size_t j = 0; j < n_; ++j) x[j] = less(less(x[j], 2 * q_), q_);
    }
    void inverse(uint64_t* x) const {
        for (size_t m = n_ / 2, t = 1; m >= 1; m /= 2, t *= 2)
            for (size_t i = 0; i < m; ++i) {
                const Factor w = inverse_roots_[m + i];
                uint64_t* a = x + 2 * i * t;
                for (size_t j = 0; j < t; ++j) {
                    const uint64_t u = a[j], v = a[j + t];
                    a[j] = less(u + v, 2 * q_);
                    a[j + t] = late(u + 2 * q_ - v, w);
                }
            }
        for (size_t j = 0; j < n_; ++j) x[j] = over_size(x[j]);
    }

    Factor shoup(uint64_t w) const { return {w, (uint64_t)(((unsigned __int128)w << 64) / q_)}; }
    uint64_t times(uint64_t x, const Factor& w) const { return less(late(x, w), q_); }

  private:
    // x - m if that is not negative. No branch: which way it goes is a toss-up in most places.
    static uint64_t less(uint64_t x, uint64_t m) { return std::min(x, x - m); }
    uint64_t late(uint64_t x, const Factor& w) const {  // x w modulo q, below 2q
        return x * w.value - (uint64_t)((unsigned __int128)x * w.quotient >> 64) * q_;
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
    uint64_t q_, reciprocal_ = 0;  // floor(2^(2 bits) / q)
    int bits_ = 0;                 // of q
    Factor n_inverse_{};
    std::vector<uint32_t> reversed_;  // the bits of each index in reverse order
    std::vector<Factor> roots_, inverse_roots_;
};
