// The JavaScript edge: the client's half of the kernel as functions of numbers and addresses, compiled to WebAssembly (build.py).
//
// The module imports nothing, so it can reach neither network nor clock nor randomness: seeds come in from the platform's generator.
// The caller (src/kernel.ts) checks sizes; a call that is refused here traps.
#include <cstdlib>
#include <new>

#include "chacha20.hpp"
#include "ckks.hpp"
#include "exact_product.hpp"
#include "keys.hpp"
#include "packing.hpp"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

// What the C++ library needs of its runtime, which is left out: memory, and the end of the call where a check of the library fails.
void* operator new(size_t bytes) {
    void* memory = std::malloc(bytes);
    if (!memory) __builtin_trap();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
namespace std { inline namespace __1 {
[[noreturn]] void __libcpp_verbose_abort(const char*, ...) noexcept { __builtin_trap(); }
} }

const KernelTable& kernel() {
    static const KernelTable table = [] {
        KernelTable functions{};  // a client evaluates nothing: these two are all that it needs
        functions.name = "wasm";
        functions.add_binary_product = CS_ISA::add_binary_product;
        functions.chacha20_blocks = CS_ISA::chacha20_blocks;
        return functions;
    }();
    return table;
}

static Seed seed_at(const uint8_t* bytes) {
    Seed seed;
    std::memcpy(seed.data(), bytes, seed.size());
    return seed;
}

EXPORT(allocate) void* allocate(size_t bytes) { return std::malloc(bytes); }
EXPORT(release) void release(void* memory) { std::free(memory); }

EXPORT(chacha20) void chacha20(const uint8_t* key, uint32_t counter, const uint32_t* nonce, size_t blocks, uint32_t* out) {
    kernel().chacha20_blocks(key, counter, nonce, blocks, out);
}

EXPORT(block_binary) void block_binary_key(const uint8_t* seed, size_t blocks, size_t length, int8_t* key) {
    block_binary(seed_at(seed), blocks, length, key);
}

EXPORT(uniform_ternary) void uniform_ternary_key(const uint8_t* seed, size_t count, int8_t* key) { uniform_ternary(seed_at(seed), count, key); }

EXPORT(key_switch_key_bodies)
void key_switch_key_bodies(const int8_t* input_keys, size_t input_dimension, const int8_t* output_keys, size_t output_dimension,
                           size_t bodies, int base_log, int levels, double std_dev, size_t first_row, const uint8_t* mask_seed,
                           const uint8_t* noise_seed, uint32_t* out) {
    const LweKeySwitchShape shape{input_dimension, output_dimension, bodies, base_log, levels, first_row};
    key_switch_bodies(shape, input_keys, output_keys, std_dev, seed_at(mask_seed), seed_at(noise_seed), 1, out);
}

// `entries` GGSW ciphertexts from `first_entry` on, whose bits are at `bits`; bodies as multiples of 2^(64 - body_bits), shifted down.
EXPORT(bootstrapping_key_bodies)
void bootstrapping_key_bodies(const int8_t* bits, size_t entries, size_t first_entry, const int8_t* glwe_keys, size_t glwe_dimension,
                              size_t bodies, size_t polynomial_size, int base_log, int levels, double std_dev, const uint8_t* mask_seed,
                              const uint8_t* noise_seed, int body_bits, uint64_t* out) {
    const RingKeyShape shape{entries, glwe_dimension + bodies, glwe_dimension, bodies, polynomial_size, base_log, levels, first_entry};
    const Seed masks = seed_at(mask_seed), noise = seed_at(noise_seed);
    bootstrap_bodies(shape, bits, {glwe_keys, std_dev, masks, noise, body_bits}, 1, out);
    for (size_t j = 0; j < entries * shape.body_words(); ++j) out[j] >>= 64 - body_bits;
}

// A ring switch key of sources [entries][parts][bodies][N], likewise.
EXPORT(ring_switch_key_bodies)
void ring_switch_key_bodies(const int8_t* sources, size_t entries, size_t parts, size_t first_entry, const int8_t* glwe_keys,
                            size_t glwe_dimension, size_t bodies, size_t polynomial_size, int base_log, int levels, double std_dev,
                            const uint8_t* mask_seed, const uint8_t* noise_seed, int body_bits, uint64_t* out) {
    const RingKeyShape shape{entries, parts, glwe_dimension, bodies, polynomial_size, base_log, levels, first_entry};
    const Seed masks = seed_at(mask_seed), noise = seed_at(noise_seed);
    ring_switch_bodies(shape, sources, {glwe_keys, std_dev, masks, noise, body_bits}, 1, out);
    for (size_t j = 0; j < entries * shape.body_words(); ++j) out[j] >>= 64 - body_bits;
}

EXPORT(answer_key_bodies)
void answer_key_bodies(const int8_t* big_key, size_t big_dimension, const int8_t* secret, size_t degree, uint64_t modulus, int base_log,
                       int levels, double std_dev, const uint8_t* mask_seed, const uint8_t* noise_seed, uint64_t* out) {
    const AnswerRing ring(degree, modulus, {big_dimension, base_log, levels});
    ring.bodies(big_key, secret, std_dev, seed_at(mask_seed), seed_at(noise_seed), out);
}

EXPORT(ckks_encrypt)
void ckks_encrypt(const int8_t* secret, size_t degree, uint64_t modulus, const double* values, size_t count, int body_bits,
                  const uint8_t* mask_seed, const uint8_t* noise_seed, uint64_t* c0, uint64_t* c1) {
    CkksRing(degree, modulus).encrypt(secret, values, count, body_bits, seed_at(mask_seed), seed_at(noise_seed), c0, c1);
}

EXPORT(ckks_decrypt)
void ckks_decrypt(const int8_t* secret, size_t degree, uint64_t modulus, const uint64_t* c0, size_t count, const uint64_t* c1, int bits,
                  double* values) {
    CkksRing(degree, modulus).decrypt(secret, c0, count, c1, bits, values);
}

// Integers of `bits` bits, least significant bit first, as a container's fields have them (docs/format.md); `out` is zero before.
EXPORT(pack_bits) void pack_bits(const uint64_t* values, size_t count, int bits, uint8_t* out) {
    size_t position = 0;
    for (size_t i = 0; i < count; ++i)
        for (int done = 0; done < bits;) {
            const int shift = (int)(position & 7), here = std::min(8 - shift, bits - done);
            out[position >> 3] |= (uint8_t)(((values[i] >> done) & ((1u << here) - 1)) << shift);
            done += here;
            position += here;
        }
}

EXPORT(unpack_bits) void unpack_bits(const uint8_t* in, size_t count, int bits, uint64_t* values) {
    size_t position = 0;
    for (size_t i = 0; i < count; ++i) {
        values[i] = 0;
        for (int done = 0; done < bits;) {
            const int shift = (int)(position & 7), here = std::min(8 - shift, bits - done);
            values[i] |= (uint64_t)((in[position >> 3] >> shift) & ((1u << here) - 1)) << done;
            done += here;
            position += here;
        }
    }
}
