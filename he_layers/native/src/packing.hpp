// Packing: many LWE ciphertexts under the big key into one RLWE ciphertext under the CKKS secret of the answer ring
// (Chen, Dai, Kim, Song, eprint 2020/015, Algorithms 1 and 2), then re-randomized with a public encryption of zero. Or weighted sums of messages
// that are under the CKKS secret already.
//
// Rows of the answer key, each an RLWE pair (body, mask) in NTT form modulo q with body + mask s = e + gadget * source:
//   `levels` rows                         source = the big LWE key, read as a ring element
//   `levels` rows for each g = 1 .. log2 N  source = s(X^(2^g + 1))
//   the last row                          source = 0: the public key
#pragma once
#include <algorithm>

#include "ntt.hpp"
#include "sampling.hpp"
#include "threads.hpp"

struct AnswerShape {
    size_t big_dimension;  // k * N of the look-up ring, at most the answer ring's degree
    int base_log, levels;
};

class AnswerRing {
  public:
    AnswerRing(size_t degree, uint64_t modulus, AnswerShape shape) : ntt_(degree, modulus), shape_(shape), log_(__builtin_ctzll(degree)) {}

    size_t degree() const { return ntt_.size(); }
    size_t rows() const { return (1 + (size_t)log_) * shape_.levels + 1; }

    void mask(const Seed& seed, size_t row, uint64_t* out) const {
        RandomStream stream(seed, kRingMask, row);
        for (size_t j = 0; j < degree(); ++j) out[j] = stream.below(ntt_.modulus());
    }

    // big_key: [big_dimension]; bodies: [rows][N], NTT form.
    void bodies(const int8_t* big_key, const int8_t* secret, double std_dev, const Seed& mask_seed, const Seed& noise_seed,
                uint64_t* out) const {
        const size_t n = degree();
        std::vector<uint64_t> s(n), source(n), mask_words(n);
        for (size_t j = 0; j < n; ++j) s[j] = ntt_.from_signed(secret[j]);
        std::vector<uint64_t> s_ntt = s;
        ntt_.forward(s_ntt.data());
        for (size_t row = 0; row < rows(); ++row) {
            const size_t part = row / shape_.levels, level = row % shape_.levels;
            std::fill(source.begin(), source.end(), 0);
            if (part == 0)
                for (size_t j = 0; j < shape_.big_dimension; ++j) source[j] = ntt_.from_signed(big_key[j]);
            else if (part <= (size_t)log_)
                automorphism(s.data(), (size_t)1 << part, source.data());
            RandomStream noise(noise_seed, kRingNoise, row);
            for (size_t j = 0; j < n; ++j)
                source[j] = ntt_.add(ntt_.multiply(source[j], gadget(level)), ntt_.from_signed(std::llrint(noise.normal() * std_dev)));
            ntt_.forward(source.data());
            mask(mask_seed, row, mask_words.data());
            for (size_t j = 0; j < n; ++j) out[row * n + j] = ntt_.subtract(source[j], ntt_.multiply(mask_words[j], s_ntt[j]));
        }
    }

    // in: [count][big_dimension + 1] torus words under the big key -> c0, c1: [N] residues; message i at coefficient i * N / 2^ceil(log2 count).
    void pack(const uint32_t* in, size_t count, const uint64_t* key, double error_std_dev, double flooding_std_dev, const Seed& seed,
              size_t threads, uint64_t* c0, uint64_t* c1) const {
        const size_t row = shape_.big_dimension + 1;
        pack(count, [&](size_t i) { return embed(in + i * row, key); }, key, error_std_dev, flooding_std_dev, seed, threads, c0, c1);
    }

    // in: [elements][2][N] residues under the CKKS secret, which hold `columns` messages; weights: [count][columns]; bias: [count] residues.
    // The weighted sums are packed as above; `in` is brought to NTT form.
    void pack_products(uint64_t* in, size_t elements, const int32_t* weights, size_t columns, const uint64_t* bias, size_t count,
                       const uint64_t* key, double error_std_dev, double flooding_std_dev, const Seed& seed, size_t threads, uint64_t* c0,
                       uint64_t* c1) const {
        share(2 * elements, threads, 1, [&](size_t begin, size_t end, size_t) {
            for (size_t i = begin; i < end; ++i) ntt_.forward(in + i * degree());
        });
        const auto leaf = [&](size_t i) { return product(in, elements, weights + i * columns, columns, bias[i]); };
        pack(count, leaf, key, error_std_dev, flooding_std_dev, seed, threads, c0, c1);
    }

  private:
    struct Pair {  // in NTT form
        Pair() = default;  // nothing: zero
        explicit Pair(size_t n) : c0(n), c1(n) {}
        bool empty() const { return c0.empty(); }
        std::vector<uint64_t> c0, c1;
    };

    // Packs what leaf(i) gives for each i below count: a ciphertext whose constant coefficient is message i times N^-1.
    template <class Leaf>
    void pack(size_t count, const Leaf& leaf, const uint64_t* key, double error_std_dev, double flooding_std_dev, const Seed& seed, size_t threads,
              uint64_t* c0, uint64_t* c1) const {
        int depth = 0, top = 0;
        while (((size_t)1 << depth) < count) ++depth;
        while (threads > 1 && top < depth && ((size_t)1 << top) < 4 * threads) ++top;
        // The threads make the lowest trees, one of them joins those.
        std::vector<Pair> trees((size_t)1 << top);
        share(trees.size(), threads, 1, [&](size_t begin, size_t end, size_t) {
            for (size_t i = begin; i < end; ++i) trees[i] = tree(i, trees.size(), depth - top, count, key, leaf);
        });
        Pair packed = tree(0, 1, top, trees.size(), key, [&](size_t i) { return std::move(trees[i]); }, depth - top);
        for (int g = log_; g > depth; --g) add_into(packed, rotate(packed, g, key));
        rerandomize(packed, key + 2 * (rows() - 1) * degree(), error_std_dev, flooding_std_dev, seed);
        std::copy(packed.c0.begin(), packed.c0.end(), c0);
        std::copy(packed.c1.begin(), packed.c1.end(), c1);
    }

    uint64_t gadget(size_t level) const {  // round(q / base^(level + 1))
        const int shift = shape_.base_log * ((int)level + 1);
        return (ntt_.modulus() + (1ull << (shift - 1))) >> shift;
    }

    // x(X) -> x(X^(power_minus_one + 1))
    void automorphism(const uint64_t* x, size_t power_minus_one, uint64_t* out) const {
        const size_t n = degree();
        for (size_t j = 0; j < n; ++j) {
            const size_t at = j * (power_minus_one + 1) & (2 * n - 1);
            if (at < n) out[at] = x[j];
            else out[at - n] = ntt_.subtract(0, x[j]);
        }
    }

    void add_into(Pair& x, const Pair& y) const {
        for (size_t j = 0; j < degree(); ++j) {
            x.c0[j] = ntt_.add(x.c0[j], y.c0[j]);
            x.c1[j] = ntt_.add(x.c1[j], y.c1[j]);
        }
    }

    // c1 * source -> a pair under s; c1: coefficients; key: [levels][2][N].
    Pair switch_key(const std::vector<uint64_t>& c1, const uint64_t* key) const {
        const size_t n = degree();
        const int levels = shape_.levels, shift = shape_.base_log * levels;
        const uint64_t base = 1ull << shape_.base_log;
        const Ntt::Factor power = ntt_.shoup(1ull << shift);
        std::vector<uint64_t> digits((size_t)levels * n);
        for (size_t j = 0; j < n; ++j) {
            uint64_t x = ntt_.upper_bits(c1[j], power);
            for (int level = levels - 1; level >= 0; --level) {
                const uint64_t d = x & (base - 1), high = d >> (shape_.base_log - 1);
                x = (x >> shape_.base_log) + high;
                digits[level * n + j] = d + high * (ntt_.modulus() - base);
            }
        }
        Pair sum(n);
        for (int level = 0; level < levels; ++level) {
            uint64_t* d = digits.data() + level * n;
            ntt_.forward(d);
            const uint64_t *b = key + 2 * level * n, *a = b + n;
            for (size_t j = 0; j < n; ++j) {
                sum.c0[j] = ntt_.add(sum.c0[j], ntt_.multiply(d[j], b[j]));
                sum.c1[j] = ntt_.add(sum.c1[j], ntt_.multiply(d[j], a[j]));
            }
        }
        return sum;
    }

    // One LWE row as a ring ciphertext whose constant coefficient is the message times N^-1 (the trace multiplies by N); key: of its big key.
    Pair embed(const uint32_t* row, const uint64_t* key) const {
        const size_t n = degree(), big = shape_.big_dimension;
        const auto residue = [&](uint32_t word) {
            const uint64_t x = (uint64_t)(((unsigned __int128)word * ntt_.modulus() + (1ull << 31)) >> 32);
            return ntt_.over_size(x);
        };
        std::vector<uint64_t> c1(n);
        c1[0] = ntt_.subtract(0, residue(row[0]));
        for (size_t j = 1; j < big; ++j) c1[n - j] = residue(row[j]);
        Pair embedded = switch_key(c1, key);
        const uint64_t body = residue(row[big]);
        for (uint64_t& x : embedded.c0) x = ntt_.add(x, body);  // a constant is the same in each slot
        return embedded;
    }

    // A ring ciphertext whose constant coefficient is the weighted sum of the messages plus the bias, times N^-1: x(X) w(1 / X).
    Pair product(const uint64_t* in, size_t elements, const int32_t* weights, size_t columns, uint64_t bias) const {
        const size_t n = degree();
        Pair sum(n);
        std::vector<uint64_t> factor(n);
        for (size_t e = 0; e < elements; ++e) {
            std::fill(factor.begin(), factor.end(), 0);
            const int32_t* own = weights + e * n;
            for (size_t j = 0; j < std::min(n, columns - e * n); ++j) {
                const int64_t weight = own[j];
                factor[j ? n - j : 0] = ntt_.over_size(ntt_.from_signed(j ? -weight : weight));
            }
            ntt_.forward(factor.data());
            const uint64_t *c0 = in + 2 * e * n, *c1 = c0 + n;
            for (size_t j = 0; j < n; ++j) {
                sum.c0[j] = ntt_.add(sum.c0[j], ntt_.multiply(c0[j], factor[j]));
                sum.c1[j] = ntt_.add(sum.c1[j], ntt_.multiply(c1[j], factor[j]));
            }
        }
        const uint64_t constant = ntt_.over_size(bias);
        for (uint64_t& x : sum.c0) x = ntt_.add(x, constant);
        return sum;
    }

    Pair rotate(const Pair& x, int g, const uint64_t* key) const {  // the automorphism X -> X^(2^g + 1), back under s
        const size_t n = degree(), power = ((size_t)1 << g) + 1;
        std::vector<uint64_t> coefficients = x.c1, c1(n);
        ntt_.inverse(coefficients.data());
        automorphism(coefficients.data(), power - 1, c1.data());
        Pair rotated = switch_key(c1, key + 2 * (size_t)g * shape_.levels * n);
        for (size_t i = 0; i < n; ++i) {
            const size_t from = ntt_.slot(ntt_.exponent(i) * power & (2 * n - 1));
            rotated.c0[i] = ntt_.add(rotated.c0[i], x.c0[from]);
        }
        return rotated;
    }

    // The leaves first, first + stride, .. below count, 2^depth in all, in one; each is itself a tree of depth `below`.
    template <class Leaf>
    Pair tree(size_t first, size_t stride, int depth, size_t count, const uint64_t* key, const Leaf& leaf, int below = 0) const {
        if (first >= count) return {};
        if (depth == 0) return leaf(first);
        Pair even = tree(first, 2 * stride, depth - 1, count, key, leaf, below);
        const Pair odd = tree(first + stride, 2 * stride, depth - 1, count, key, leaf, below);
        if (even.empty()) return even;
        const size_t n = degree(), shift = n >> (depth + below);
        Pair difference = even;
        if (!odd.empty())
            for (size_t i = 0; i < n; ++i) {  // t = X^shift odd
                const size_t power = shift * ntt_.exponent(i) & (2 * n - 1);
                const Ntt::Factor& root = ntt_.root(power & (n - 1));
                uint64_t t0 = ntt_.times(odd.c0[i], root), t1 = ntt_.times(odd.c1[i], root);
                if (power >= n) t0 = ntt_.subtract(0, t0), t1 = ntt_.subtract(0, t1);
                difference.c0[i] = ntt_.subtract(even.c0[i], t0);
                difference.c1[i] = ntt_.subtract(even.c1[i], t1);
                even.c0[i] = ntt_.add(even.c0[i], t0);
                even.c1[i] = ntt_.add(even.c1[i], t1);
            }
        add_into(even, rotate(difference, depth + below, key));
        return even;
    }

    // += (b u + e0 + flooding, a u + e1), u uniform ternary; then coefficients.
    void rerandomize(Pair& x, const uint64_t* public_key, double error_std_dev, double flooding_std_dev, const Seed& seed) const {
        const size_t n = degree();
        RandomStream stream(seed, kRerandomize, 0);
        std::vector<uint64_t> u(n);
        for (size_t j = 0; j < n; ++j) u[j] = ntt_.from_signed((int64_t)stream.below(3) - 1);
        ntt_.forward(u.data());
        for (size_t j = 0; j < n; ++j) {
            x.c0[j] = ntt_.add(x.c0[j], ntt_.multiply(public_key[j], u[j]));
            x.c1[j] = ntt_.add(x.c1[j], ntt_.multiply(public_key[n + j], u[j]));
        }
        ntt_.inverse(x.c0.data());
        ntt_.inverse(x.c1.data());
        for (size_t j = 0; j < n; ++j) {
            const double e0 = stream.normal() * error_std_dev + stream.normal() * flooding_std_dev;
            x.c0[j] = ntt_.add(x.c0[j], ntt_.from_signed(std::llrint(e0)));
            x.c1[j] = ntt_.add(x.c1[j], ntt_.from_signed(std::llrint(stream.normal() * error_std_dev)));
        }
    }

    Ntt ntt_;
    AnswerShape shape_;
    int log_;
};
