// CKKS with messages in coefficients, in a ring with one prime: secrets, encryption under the secret, decryption.
//
// The Python client has SEAL for this; clients without it (WebAssembly) have this file, with SEAL's distributions: a uniform ternary
// secret, a uniform mask, and an error that is centered binomial over 21 + 21 bits (variance 10.5).
#pragma once
#include <algorithm>

#include "ntt.hpp"
#include "sampling.hpp"

// secret: [count] of -1, 0, 1, each with probability 1/3.
inline void uniform_ternary(const Seed& seed, size_t count, int8_t* secret) {
    RandomStream stream(seed, kRingSecret, 0);
    for (size_t j = 0; j < count; ++j) secret[j] = (int8_t)((int)stream.below(3) - 1);
}

inline int64_t centered_binomial(RandomStream& stream) {
    constexpr uint32_t kBits = (1u << 21) - 1;
    const uint32_t plus = stream.word() & kBits, minus = stream.word() & kBits;
    return __builtin_popcount(plus) - __builtin_popcount(minus);
}

class CkksRing {
  public:
    CkksRing(size_t degree, uint64_t modulus) : ntt_(degree, modulus) {}

    size_t degree() const { return ntt_.size(); }

    // values: [count] of the torus; c1: [N] residues; c0: [count], rounded to `body_bits` of the torus.
    // c0 + c1 s = values + e: what c0 leaves out is never computed further than the sum.
    void encrypt(const int8_t* secret, const double* values, size_t count, int body_bits, const Seed& mask_seed, const Seed& noise_seed,
                 uint64_t* c0, uint64_t* c1) const {
        const size_t n = degree();
        const double q = (double)ntt_.modulus(), unit = std::ldexp(1.0, body_bits) / q;
        RandomStream masks(mask_seed, kCkksMask, 0), noise(noise_seed, kCkksNoise, 0);
        for (size_t j = 0; j < n; ++j) c1[j] = masks.below(ntt_.modulus());
        const std::vector<uint64_t> product = times_secret(c1, secret);
        for (size_t j = 0; j < n; ++j) {
            const int64_t message = (j < count ? std::llrint(values[j] * q) : 0) + centered_binomial(noise);
            const uint64_t body = ntt_.subtract(ntt_.from_signed(message), product[j]);
            if (j < count) c0[j] = (uint64_t)std::llrint((double)body * unit) & ((1ull << body_bits) - 1);
        }
    }

    // c0: [count] at every (N / 2^ceil(log2 count))-th coefficient, c1: [N], both in units of 2^-bits of the torus; values: [count] in
    // [-1/2, 1/2], multiples of 2^-bits.
    void decrypt(const int8_t* secret, const uint64_t* c0, size_t count, const uint64_t* c1, int bits, double* values) const {
        const size_t n = degree();
        const double q = (double)ntt_.modulus(), scale = std::ldexp(1.0, bits);
        const auto residue = [&](uint64_t x) { return (uint64_t)std::llrint((double)x * (q / scale)) % ntt_.modulus(); };
        std::vector<uint64_t> mask(n);
        for (size_t j = 0; j < n; ++j) mask[j] = residue(c1[j]);
        const std::vector<uint64_t> product = times_secret(mask.data(), secret);
        size_t step = n;
        while (n / step < count) step /= 2;
        for (size_t i = 0; i < count; ++i) {
            const double turns = (double)ntt_.add(residue(c0[i]), product[i * step]) / q;
            values[i] = std::nearbyint((turns < 0.5 ? turns : turns - 1.0) * scale) / scale;
        }
    }

  private:
    std::vector<uint64_t> times_secret(const uint64_t* x, const int8_t* secret) const {
        const size_t n = degree();
        std::vector<uint64_t> product(x, x + n), s(n);
        for (size_t j = 0; j < n; ++j) s[j] = ntt_.from_signed(secret[j]);
        ntt_.forward(product.data());
        ntt_.forward(s.data());
        for (size_t j = 0; j < n; ++j) product[j] = ntt_.multiply(product[j], s[j]);
        ntt_.inverse(product.data());
        return product;
    }

    Ntt ntt_;
};
