// The ChaCha20 block function (RFC 8439, section 2.3), sixteen blocks side by side.
#pragma once
#include "simd.hpp"

namespace CS_ISA {

constexpr int BLOCKS = 16;
typedef uint32_t vblocks __attribute__((vector_size(BLOCKS * 4)));

CS_INLINE vblocks rotate_left(vblocks x, int bits) { return (x << bits) | (x >> (32 - bits)); }

CS_INLINE void quarter_round(vblocks& a, vblocks& b, vblocks& c, vblocks& d) {
    a += b; d = rotate_left(d ^ a, 16);
    c += d; b = rotate_left(b ^ c, 12);
    a += b; d = rotate_left(d ^ a, 8);
    c += d; b = rotate_left(b ^ c, 7);
}

// key: 32 bytes; nonce: 3 words; writes 16 words per block. Little-endian hosts only (checked in isa.cpp).
static void chacha20_blocks(const uint8_t* key, uint32_t counter, const uint32_t* nonce, size_t blocks, uint32_t* out) {
    uint32_t start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    __builtin_memcpy(start + 4, key, 32);
    __builtin_memcpy(start + 13, nonce, 12);
    for (size_t first = 0; first < blocks; first += BLOCKS) {
        vblocks initial[16], x[16];
        for (int w = 0; w < 16; ++w) initial[w] = vblocks{} + start[w];
        initial[12] = vblocks{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (counter + (uint32_t)first);
        for (int w = 0; w < 16; ++w) x[w] = initial[w];
        for (int round = 0; round < 10; ++round) {
            quarter_round(x[0], x[4], x[8], x[12]);
            quarter_round(x[1], x[5], x[9], x[13]);
            quarter_round(x[2], x[6], x[10], x[14]);
            quarter_round(x[3], x[7], x[11], x[15]);
            quarter_round(x[0], x[5], x[10], x[15]);
            quarter_round(x[1], x[6], x[11], x[12]);
            quarter_round(x[2], x[7], x[8], x[13]);
            quarter_round(x[3], x[4], x[9], x[14]);
        }
        for (int w = 0; w < 16; ++w) x[w] += initial[w];
        const size_t here = blocks - first < (size_t)BLOCKS ? blocks - first : BLOCKS;
        for (size_t lane = 0; lane < here; ++lane)
            for (int w = 0; w < 16; ++w) out[(first + lane) * 16 + w] = x[w][lane];
    }
}

}  // namespace CS_ISA
