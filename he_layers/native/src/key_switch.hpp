// LWE key switch: out = (0, b) - sum_ij digit_ij(a_i) key_ij modulo 2^32 (CGGI, eprint 2018/421, section 4.1).
//
// No multiplication: for each group of digits all their combinations of key rows are laid out once in a table, and every ciphertext
// adds the one row that its digits name ("four Russians"). Tables of a few words and KEY_TILE columns stay in the first-level cache
// while all ciphertexts pass by.
#pragma once
#include "kernel_table.hpp"
#include "simd.hpp"

namespace CS_ISA {

typedef uint32_t vw __attribute__((vector_size(LANES * 8), aligned(4), may_alias));
constexpr size_t TILE_VECTORS = KEY_TILE * 4 / sizeof(vw);
constexpr size_t CHUNK = 64;  // words decomposed side by side
constexpr size_t TABLE_BYTES = 20 << 10;
constexpr size_t TOGETHER = 256;  // ciphertexts whose sums of one tile stay in the second-level cache

struct DigitGroups {
    int base, levels;           // digits lie in [-base / 2, base / 2]
    int per_group, groups;      // levels in one table; tables of one word
    size_t rows, words;         // of one table; words whose tables are laid out together

    explicit DigitGroups(const KeySwitchJob& job) : base(1 << job.base_log), levels(job.levels), per_group(1), rows((size_t)base + 1) {
        while (per_group < levels && rows * (base + 1) <= 32) {
            rows *= base + 1;
            ++per_group;
        }
        groups = (levels + per_group - 1) / per_group;
        words = CHUNK;
        while (words > 1 && words * groups * rows * KEY_TILE * 4 > TABLE_BYTES) words /= 2;
    }
    size_t entries() const { return words * groups; }
    size_t blocks(const KeySwitchJob& job) const { return (job.input_dimension + words - 1) / words; }
};

static size_t key_switch_digit_bytes(const KeySwitchJob& job) {
    const DigitGroups g(job);
    return g.blocks(job) * job.count * g.entries();
}

static size_t key_switch_scratch(const KeySwitchJob& job) {
    const DigitGroups g(job);
    return (g.entries() * g.rows + (job.count < TOGETHER ? job.count : TOGETHER)) * KEY_TILE * 4;
}

// The digits of ciphertexts [begin, end), as the row of each table that they take: digits [blocks][count][words][groups]; and the bodies.
//
// They are the balanced digits of the top base_log * levels bits, most significant first, as the key rows stand. A digit of base/2 takes
// the sign that makes the next one smaller (the first, where both are the same word, that of the lowest bit), so digits have mean zero:
// a mean would turn the key's fixed noise into an offset common to all ciphertexts.
static void key_switch_digits(const KeySwitchJob& job, size_t begin, size_t end, uint8_t* digits) {
    const DigitGroups g(job);
    const int dropped = 32 - job.base_log * g.levels, base_log = job.base_log;
    const uint32_t base = 1u << base_log, half = base / 2;
    const size_t entries = g.entries();
    for (size_t c = begin; c < end; ++c) {
        const uint32_t* row = job.in + c * (job.input_dimension + job.bodies);
        int64_t error = 0;
        for (size_t first = 0; first < job.input_dimension; first += CHUNK) {
            const size_t here = job.input_dimension - first < CHUNK ? job.input_dimension - first : CHUNK;
            uint32_t a[CHUNK] = {}, x[CHUNK], at[CHUNK];
            __builtin_memcpy(a, row + first, here * 4);
            for (size_t i = 0; i < CHUNK; ++i) {
                x[i] = (a[i] >> dropped) + ((a[i] >> (dropped - 1)) & 1u);
                error += (int32_t)(a[i] - (x[i] << dropped));
            }
            for (int group = g.groups; group-- > 0;) {
                const int first_level = group * g.per_group, after = first_level + g.per_group < g.levels ? first_level + g.per_group : g.levels;
                uint32_t unit = 1;
                for (size_t i = 0; i < CHUNK; ++i) at[i] = 0;
                for (int level = after; level-- > first_level; unit *= base + 1)
                    for (size_t i = 0; i < CHUNK; ++i) {
                        const uint32_t d = x[i] & (base - 1), rest = x[i] >> base_log;
                        const uint32_t next_is_high = level ? (rest >> (base_log - 1)) & 1u : a[i] & 1u;
                        const uint32_t carry = (d + next_is_high + half - 1) >> base_log;
                        at[i] += (d + half - (carry << base_log)) * unit;
                        x[i] = rest + carry;
                    }
                uint8_t* out = digits + (first / g.words * job.count + c) * entries + group;
                for (size_t i = 0; i < here; out += job.count * entries)
                    for (size_t e = 0; e < entries; e += g.groups) out[e] = (uint8_t)at[i++];
            }
        }
        // What rounding took from the mask comes back times the key: half of it, on average, for a binary key.
        for (size_t body = 0; body < job.bodies; ++body)
            job.out[c * (job.output_dimension + job.bodies) + job.output_dimension + body] =
                row[job.input_dimension + body] - (job.binary_key ? (uint32_t)(error >> 1) : 0);
    }
}

// KEY_TILE columns of a row, in registers.
struct vw_row {
    vw v[TILE_VECTORS];
};

CS_INLINE vw_row load_row(const vw* from) {
    vw_row row;
#pragma GCC unroll 8
    for (size_t v = 0; v < TILE_VECTORS; ++v) row.v[v] = from[v];
    return row;
}

CS_INLINE void store_row(vw* to, const vw_row& row) {
#pragma GCC unroll 8
    for (size_t v = 0; v < TILE_VECTORS; ++v) to[v] = row.v[v];
}

CS_INLINE void add_row(vw_row& sum, const vw_row& row) {
#pragma GCC unroll 8
    for (size_t v = 0; v < TILE_VECTORS; ++v) sum.v[v] += row.v[v];
}

CS_INLINE void subtract_row(vw_row& sum, const vw_row& row) {
#pragma GCC unroll 8
    for (size_t v = 0; v < TILE_VECTORS; ++v) sum.v[v] -= row.v[v];
}

// table[digits] = sum_l digit_l key_l: level by level, each row of the last level's table spread by one addition for each new row.
static void lay_out_table(const DigitGroups& g, const vw* key, int levels, vw* table) {
    const int half = g.base / 2;
    size_t known = 1;
    store_row(table, vw_row{});
    for (int l = 0; l < levels; ++l, known *= g.base + 1) {
        const vw_row step = load_row(key + l * TILE_VECTORS);
        for (size_t k = known; k-- > 0;) {  // from the end: row k moves to the middle of the rows that it becomes
            vw* middle = table + (k * (g.base + 1) + half) * TILE_VECTORS;
            vw_row up = load_row(table + k * TILE_VECTORS), down = up;
            store_row(middle, up);
            for (int d = 1; d <= half; ++d) {
                add_row(up, step);
                subtract_row(down, step);
                store_row(middle + (size_t)d * TILE_VECTORS, up);
                store_row(middle - (size_t)d * TILE_VECTORS, down);
            }
        }
    }
}

// Columns of one tile for all ciphertexts.
static void key_switch_tile(const KeySwitchJob& job, const uint8_t* digits, size_t tile, void* memory) {
    const DigitGroups g(job);
    const size_t width = job.output_dimension + job.bodies, entries = g.entries(), table_vectors = g.rows * TILE_VECTORS;
    const size_t first_column = tile * KEY_TILE, columns = width - first_column < KEY_TILE ? width - first_column : KEY_TILE;
    vw* tables = static_cast<vw*>(memory);
    vw* sums = tables + entries * table_vectors;
    const vw* key = reinterpret_cast<const vw*>(job.key) + tile * job.input_dimension * g.levels * TILE_VECTORS;
    for (size_t begin = 0; begin < job.count; begin += TOGETHER) {
        const size_t here = job.count - begin < TOGETHER ? job.count - begin : TOGETHER;
        for (size_t x = 0; x < here * TILE_VECTORS; ++x) sums[x] = vw{};
        for (size_t word = 0; word < job.input_dimension; word += g.words) {
            const size_t words = job.input_dimension - word < g.words ? job.input_dimension - word : g.words;
            for (size_t e = 0; e < words * g.groups; ++e) {
                const int level = (int)(e % g.groups) * g.per_group, levels = g.levels - level < g.per_group ? g.levels - level : g.per_group;
                lay_out_table(g, key + ((word + e / g.groups) * g.levels + level) * TILE_VECTORS, levels, tables + e * table_vectors);
            }
            const uint8_t* at = digits + (word / g.words * job.count + begin) * entries;
            for (size_t c = 0; c < here; ++c, at += entries) {
                vw_row sum = load_row(sums + c * TILE_VECTORS);
                const vw* table = tables;
                for (size_t e = 0; e < words * g.groups; ++e, table += table_vectors) subtract_row(sum, load_row(table + at[e] * TILE_VECTORS));
                store_row(sums + c * TILE_VECTORS, sum);
            }
        }
        for (size_t c = 0; c < here; ++c) {
            uint32_t* out = job.out + (begin + c) * width + first_column;
            const uint32_t* sum = reinterpret_cast<const uint32_t*>(sums + c * TILE_VECTORS);
            for (size_t j = 0; j < columns; ++j) out[j] = (first_column + j >= job.output_dimension ? out[j] : 0) + sum[j];
        }
    }
}

}  // namespace CS_ISA
