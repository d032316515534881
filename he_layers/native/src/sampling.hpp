// Randomness: ChaCha20 streams (RFC 8439) named by seed, domain and index, and the distributions drawn from them.
//
// A seed is 32 bytes from the operating system (the caller's duty). Masks and noise use different seeds, so a published mask seed
// says nothing of the noise.
#pragma once
#include <array>
#include <cmath>
#include <cstring>

#include "kernel_table.hpp"

using Seed = std::array<uint8_t, 32>;

enum Domain : uint32_t {
    kKeySwitchMask = 1, kKeySwitchNoise = 2, kBootstrapMask = 3, kBootstrapNoise = 4, kRingMask = 5, kRingNoise = 6,
    kSecretBits = 7, kRerandomize = 8, kTest = 9, kSecretBlocks = 10, kRingSecret = 11, kCkksMask = 12, kCkksNoise = 13,
};

class RandomStream {
  public:
    RandomStream(const Seed& seed, uint32_t domain, uint64_t index)
        : seed_(seed), nonce_{domain, (uint32_t)index, (uint32_t)(index >> 32)} {}

    uint32_t word() {
        if (used_ == kWords) refill();
        return buffer_[used_++];
    }
    uint64_t word64() {
        const uint64_t low = word();
        return low | (uint64_t)word() << 32;
    }
    void fill(uint32_t* out, size_t words) {
        for (; words && used_ < kWords; --words) *out++ = buffer_[used_++];
        const size_t blocks = words / 16;
        kernel().chacha20_blocks(seed_.data(), counter_, nonce_, blocks, out);
        counter_ += (uint32_t)blocks;
        for (size_t w = blocks * 16; w < words; ++w) out[w] = word();
    }
    // Standard normal, Box-Muller; one call draws two and keeps one. |x| < 8.6.
    double normal() {
        if (have_) {
            have_ = false;
            return spare_;
        }
        const double u = (double)((word64() >> 11) + 1) * 0x1p-53, v = (double)(word64() >> 11) * 0x1p-53;
        const double r = std::sqrt(-2.0 * std::log(u)), angle = 6.283185307179586476925 * v;
        spare_ = r * std::sin(angle);
        have_ = true;
        return r * std::cos(angle);
    }
    uint64_t below(uint64_t bound) {  // uniform in [0, bound), by rejection
        const uint64_t mask = ~0ull >> __builtin_clzll(bound);
        for (;;) {
            const uint64_t x = word64() & mask;
            if (x < bound) return x;
        }
    }

  private:
    static constexpr size_t kWords = 256;
    void refill() {
        kernel().chacha20_blocks(seed_.data(), counter_, nonce_, kWords / 16, buffer_);
        counter_ += kWords / 16;
        used_ = 0;
    }
    Seed seed_;
    uint32_t nonce_[3];
    uint32_t counter_ = 0;
    uint32_t buffer_[kWords];
    size_t used_ = kWords;
    double spare_ = 0;
    bool have_ = false;
};

// key: [blocks * length]; each block is one of its length + 1 patterns with at most a single one, all alike likely. Length 1: uniform bits.
inline void block_binary(const Seed& seed, size_t blocks, size_t length, int8_t* key) {
    RandomStream stream(seed, kSecretBlocks, 0);
    std::memset(key, 0, blocks * length);
    for (size_t block = 0; block < blocks; ++block) {
        const uint64_t place = stream.below(length + 1);
        if (place < length) key[block * length + place] = 1;
    }
}
