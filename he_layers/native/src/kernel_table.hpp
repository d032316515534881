// The functions that exist once per instruction set, as a table of pointers chosen at run time (see isa.cpp).
// All pointers are to contiguous memory that the caller has checked; [begin, end) is the share of one thread.
#pragma once
#include <cstddef>
#include <cstdint>

// `bodies` ciphertexts may share one mask, each under a key of its own: a row then has so many bodies behind its mask ("Sharing the Mask",
// Bergerat et al., TCHES 2025/4). Rows come to share masks by merging, and what a rotation gives is split into rows under the first key.
struct BlindRotateJob {
    size_t rows, count;           // count: values, in rows of `bodies`, the last of which may be short of some
    size_t lwe_dimension, glwe_dimension, polynomial_size, bodies;
    int base_log, levels;
    int step_bits, step_keys;     // bits of the small key and GGSWs of one step: (2, 3) or (l, l) with l from 1 to 4; step_bits divides n
    const int32_t* switched;      // [rows][n + bodies], values in [0, 2N)
    const double* tables;         // [tables][N], torus
    const int32_t* table_index;   // [count]
    const int32_t* second;        // [tables], in [1, 2N): coefficient that is extracted besides the constant one, negated from N on; null: none
    const double* fourier_bsk;    // [n / step_bits * step_keys][N/2][columns][columns * levels rows][re, im]
    const double* split_key;      // [(bodies - 1) * k][N/2][k + 1][levels][re, im]
    const double* twiddles;       // see fft_tables.hpp
    uint32_t* out;                // [count][k * N + 1]; with a second coefficient as many rows of it follow
    size_t columns() const { return glwe_dimension + bodies; }  // polynomials of an accumulator
};

// Columns and levels: what there are loops for.
#define CS_ROTATION_SHAPES                                                                                                  \
    CS_SHAPE(2, 1) CS_SHAPE(2, 2) CS_SHAPE(2, 3) CS_SHAPE(3, 1) CS_SHAPE(3, 2) CS_SHAPE(4, 1) CS_SHAPE(4, 2)               \
    CS_SHAPE(5, 1) CS_SHAPE(5, 2) CS_SHAPE(6, 1) CS_SHAPE(9, 1)

struct MergeJob {
    size_t count, sources;        // values; mask polynomials of each
    size_t glwe_dimension, polynomial_size, bodies;
    int base_log, levels;
    const uint32_t* in;           // [count][sources * N + 1]
    const double* key;            // [sources][N/2][k + bodies][bodies * levels][re, im]
    const double* twiddles;
    uint32_t* out;                // [rows][k * N + bodies]: value v is body v % bodies of row v / bodies
    size_t rows() const { return (count + bodies - 1) / bodies; }
    size_t columns() const { return glwe_dimension + bodies; }
};

struct KeySwitchJob {
    size_t count, input_dimension, output_dimension, bodies;
    int base_log, levels;
    bool binary_key;              // the input key has mean 1/2 (else 0)
    const uint32_t* in;           // [count][input_dimension + bodies]
    const uint32_t* key;          // [key_switch_tiles(output_dimension + bodies)][input_dimension * levels][KEY_TILE]
    uint32_t* out;                // [count][output_dimension + bodies]
};

// A key switch key lies in tiles of KEY_TILE columns (mask and bodies, filled up with zeros), so that a tile is read from end to end.
constexpr size_t KEY_TILE = 32;
constexpr size_t key_switch_tiles(size_t columns) { return (columns + KEY_TILE - 1) / KEY_TILE; }

struct LinearJob {
    size_t outputs, width;        // width = words of a row
    const uint32_t* in;           // [inputs][width]
    const int64_t* indptr;        // [outputs + 1]
    const int32_t* indices;       // [nnz], by falling exponent within an output
    const int8_t* exponents;      // [nnz]
    const int8_t* signs;          // [nnz], +1 or -1; those of one exponent best stand together
    const int64_t* order;         // [outputs]: in which they are computed, those that read the same rows side by side
    uint32_t* out;                // [outputs][width]
};

// Groups of `lanes` ciphertexts that read the bootstrapping key together: one alone waits for memory, more than these gain nothing.
constexpr size_t MAX_GROUPS = 24;

struct KernelTable {
    const char* name;
    size_t lanes;
    size_t (*blind_rotate_scratch)(const BlindRotateJob&);                                        // bytes, 64-aligned
    void (*blind_rotate)(const BlindRotateJob&, size_t first_group, size_t last_group, void* scratch);
    void (*bootstrap_floor)(const BlindRotateJob&, size_t groups, void* scratch);                 // same FFTs and products, no data
    size_t (*key_switch_digit_bytes)(const KeySwitchJob&);
    size_t (*key_switch_scratch)(const KeySwitchJob&);                                            // bytes, 64-aligned
    void (*key_switch_digits)(const KeySwitchJob&, size_t begin, size_t end, uint8_t* digits);    // first all ciphertexts,
    void (*key_switch_tile)(const KeySwitchJob&, const uint8_t* digits, size_t tile, void* scratch);  // then all tiles
    void (*linear)(const LinearJob&, size_t begin, size_t end, void* scratch);
    size_t (*merge_scratch)(const MergeJob&);                                                     // bytes, 64-aligned
    void (*merge)(const MergeJob&, size_t first_group, size_t last_group, void* scratch);         // groups of `lanes` rows
    // Fourier transform of rows of torus polynomials, `levels` for each part, into one entry of a ring key.
    void (*rows_to_fourier)(const uint64_t* words, size_t rows, size_t columns, size_t polynomial_size, int base_log, int levels,
                            const double* twiddles, void* scratch, double* out);
    // acc += key * mask mod X^N + 1, key binary given by its set bits; exact modulo 2^64.
    void (*add_binary_product)(uint64_t* acc, const uint64_t* mask, const int32_t* set_bits, size_t bits, size_t polynomial_size,
                               uint64_t* scratch);
    void (*chacha20_blocks)(const uint8_t* key, uint32_t counter, const uint32_t* nonce, size_t blocks, uint32_t* out);
    // Fourier-domain check function: negacyclic product of digits and torus values, [LANES] at once.
    void (*negacyclic_product)(const double* digits, const double* torus, size_t polynomial_size, const double* twiddles, void* scratch,
                               double* out);
};

namespace isa_avx512 { const KernelTable& table(); }
namespace isa_avx2 { const KernelTable& table(); }
namespace isa_portable { const KernelTable& table(); }

// The table for this CPU; the environment variable CIPHERSHIFT_ISA (avx512, avx2, portable) forces one.
const KernelTable& kernel();
