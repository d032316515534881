// Key generation and the expansion of seeded keys. Everything is an integer modulo 2^32 or 2^64; products are exact.
#pragma once
#include <cstdint>
#include <vector>

#include "sampling.hpp"
#include "threads.hpp"

struct LweKeySwitchShape {
    size_t input_dimension, output_dimension, bodies;
    int base_log, levels;
    size_t first_row;  // where this key's rows start among all that share the mask seed: no mask is ever used twice
    size_t rows() const { return input_dimension * levels; }
};

// The mask of row r among all key switch keys of a seed: output_dimension words.
inline void key_switch_mask(const Seed& seed, size_t row, uint32_t* mask, size_t words) {
    RandomStream(seed, kKeySwitchMask, row).fill(mask, words);
}

// out[i * levels + level][body] = <mask, s_body> + e + input_keys[body][i] 2^(32 - base_log (level + 1)): one mask for all bodies, each under
// its own of output_keys [bodies][n].
inline void key_switch_bodies(const LweKeySwitchShape& shape, const int8_t* input_keys, const int8_t* output_keys, double std_dev,
                              const Seed& mask_seed, const Seed& noise_seed, size_t threads, uint32_t* out) {
    share(shape.input_dimension, threads, 64, [&](size_t begin, size_t end, size_t) {
        std::vector<uint32_t> mask(shape.output_dimension);
        for (size_t i = begin; i < end; ++i) {
            RandomStream noise(noise_seed, kKeySwitchNoise, i);
            for (int level = 0; level < shape.levels; ++level) {
                const size_t row = i * shape.levels + level;
                key_switch_mask(mask_seed, shape.first_row + row, mask.data(), mask.size());
                for (size_t body = 0; body < shape.bodies; ++body) {
                    const int8_t* key = output_keys + body * mask.size();
                    uint32_t word = (uint32_t)std::llrint(noise.normal() * std_dev * 0x1p32);
                    for (size_t j = 0; j < mask.size(); ++j) word += mask[j] * (uint32_t)(int32_t)key[j];
                    const uint32_t message = (uint32_t)(int32_t)input_keys[body * shape.input_dimension + i];
                    out[row * shape.bodies + body] = word + (message << (32 - shape.base_log * (level + 1)));
                }
            }
        }
    });
}

inline void expand_key_switch_key(const LweKeySwitchShape& shape, const uint32_t* bodies, const Seed& mask_seed, size_t threads,
                                  uint32_t* key) {
    const size_t n = shape.output_dimension, tiles = key_switch_tiles(n + shape.bodies);
    share(shape.rows(), threads, 256, [&](size_t begin, size_t end, size_t) {
        std::vector<uint32_t> words(tiles * KEY_TILE);
        for (size_t row = begin; row < end; ++row) {
            key_switch_mask(mask_seed, shape.first_row + row, words.data(), n);
            std::memcpy(&words[n], bodies + row * shape.bodies, shape.bodies * 4);
            for (size_t k = 0; k < tiles; ++k) std::memcpy(key + (k * shape.rows() + row) * KEY_TILE, &words[k * KEY_TILE], KEY_TILE * 4);
        }
    });
}

// GLWE rows in entries: GGSW ciphertexts, or the parts of a ring switch key. A row has a mask and as many body polynomials as share it.
struct RingKeyShape {
    size_t entries, parts, glwe_dimension, bodies, polynomial_size;  // parts: polynomials that an entry multiplies, `levels` rows for each
    int base_log, levels;
    size_t first_entry = 0;  // where these start among all that share the seeds: no mask and no noise is ever used twice
    size_t columns() const { return glwe_dimension + bodies; }
    size_t rows() const { return parts * levels; }
    size_t body_words() const { return rows() * bodies * polynomial_size; }
};

// The masks of all rows of entry i: [rows][k][N].
inline void ring_key_masks(const RingKeyShape& shape, const Seed& seed, size_t i, uint64_t* masks) {
    RandomStream(seed, kBootstrapMask, shape.first_entry + i)
        .fill(reinterpret_cast<uint32_t*>(masks), 2 * shape.rows() * shape.glwe_dimension * shape.polynomial_size);
}

struct RingKeySecrets {
    const int8_t* glwe_keys;  // [bodies][k][N], binary
    double std_dev;
    const Seed &mask_seed, &noise_seed;
    int body_bits;  // bodies are rounded to so many, which is below the noise
};

// out[i][row][body] = <mask, S_body> + e + message: all in the body, so that the masks are the seed's alone. add_message(i, part, body,
// gadget, words) adds the message of a part to words, in units of gadget = 2^(64 - base_log (level + 1)).
template <class AddMessage>
inline void ring_key_bodies(const RingKeyShape& shape, const RingKeySecrets& of, size_t threads, uint64_t* out, AddMessage add_message) {
    const size_t n = shape.polynomial_size, k = shape.glwe_dimension;
    std::vector<std::vector<int32_t>> ones(shape.bodies * k);
    for (size_t p = 0; p < ones.size(); ++p)
        for (size_t t = 0; t < n; ++t)
            if (of.glwe_keys[p * n + t]) ones[p].push_back((int32_t)t);
    const int bits = of.body_bits;
    const uint64_t half = bits < 64 ? 1ull << (63 - bits) : 0, keep = bits < 64 ? ~0ull << (64 - bits) : ~0ull;
    share(shape.entries, threads, 16, [&](size_t begin, size_t end, size_t) {
        std::vector<uint64_t> masks(shape.rows() * k * n), extended(2 * n);
        for (size_t i = begin; i < end; ++i) {
            ring_key_masks(shape, of.mask_seed, i, masks.data());
            RandomStream noise(of.noise_seed, kBootstrapNoise, shape.first_entry + i);
            uint64_t* words = out + i * shape.body_words();
            for (size_t r = 0; r < shape.rows(); ++r)
                for (size_t body = 0; body < shape.bodies; ++body, words += n) {
                    for (size_t j = 0; j < n; ++j) words[j] = (uint64_t)std::llrint(noise.normal() * of.std_dev * 0x1p64);
                    for (size_t p = 0; p < k; ++p) {
                        const std::vector<int32_t>& set = ones[body * k + p];
                        kernel().add_binary_product(words, masks.data() + (r * k + p) * n, set.data(), set.size(), n, extended.data());
                    }
                    add_message(i, r / shape.levels, body, 1ull << (64 - shape.base_log * (r % shape.levels + 1)), words);
                    for (size_t j = 0; j < n; ++j) words[j] = (words[j] + half) & keep;
                }
        }
    });
}

// GGSW ciphertexts of bits [entries][bodies]: part p holds -bit S_body,p for p < k, bit for p = k + body and 0 for the other bodies' parts.
inline void bootstrap_bodies(const RingKeyShape& shape, const int8_t* bits, const RingKeySecrets& of, size_t threads, uint64_t* out) {
    const size_t n = shape.polynomial_size, k = shape.glwe_dimension;
    ring_key_bodies(shape, of, threads, out, [&](size_t i, size_t part, size_t body, uint64_t gadget, uint64_t* words) {
        if (!bits[i * shape.bodies + body]) return;
        if (part == k + body) words[0] += gadget;
        else if (part < k)
            for (size_t j = 0; j < n; ++j) words[j] -= of.glwe_keys[(body * k + part) * n + j] ? gadget : 0;
    });
}

// A ring switch key: entry i, part p holds -sources[i][p][body], polynomials of coefficients -1, 0 and 1.
inline void ring_switch_bodies(const RingKeyShape& shape, const int8_t* sources, const RingKeySecrets& of, size_t threads, uint64_t* out) {
    const size_t n = shape.polynomial_size;
    ring_key_bodies(shape, of, threads, out, [&](size_t i, size_t part, size_t body, uint64_t gadget, uint64_t* words) {
        const int8_t* source = sources + ((i * shape.parts + part) * shape.bodies + body) * n;
        for (size_t j = 0; j < n; ++j) words[j] -= gadget * (uint64_t)(int64_t)source[j];
    });
}

// fourier: [entries][N/2][columns][rows][re, im].
inline void expand_ring_key(const RingKeyShape& shape, const uint64_t* bodies, const Seed& mask_seed, const double* twiddles,
                            size_t threads, double* fourier) {
    const size_t n = shape.polynomial_size, k = shape.glwe_dimension, columns = shape.columns(), rows = shape.rows();
    share(shape.entries, threads, 16, [&](size_t begin, size_t end, size_t) {
        std::vector<uint64_t> masks(rows * k * n), words(rows * columns * n);
        const Scratch scratch(n / 2 * kernel().lanes * 16);
        for (size_t i = begin; i < end; ++i) {
            ring_key_masks(shape, mask_seed, i, masks.data());
            for (size_t r = 0; r < rows; ++r) {
                std::memcpy(words.data() + r * columns * n, masks.data() + r * k * n, k * n * 8);
                std::memcpy(words.data() + (r * columns + k) * n, bodies + i * shape.body_words() + r * shape.bodies * n, shape.bodies * n * 8);
            }
            kernel().rows_to_fourier(words.data(), rows, columns, n, shape.base_log, shape.levels, twiddles, scratch.get(),
                                     fourier + i * n * columns * rows);
        }
    });
}
