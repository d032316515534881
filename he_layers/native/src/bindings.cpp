// The Python edge: checks shapes and dtypes, drops the GIL, calls. No Python objects below this file.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "fft_tables.hpp"
#include "keys.hpp"
#include "packing.hpp"

namespace nb = nanobind;

template <class T, size_t Dimensions>
using In = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T>;

static void require(bool ok, const std::string& message) {
    if (!ok) throw std::invalid_argument(message);
}

static std::string say(size_t x) { return std::to_string(x); }

static Seed seed_from(const nb::bytes& bytes) {
    require(bytes.size() == 32, "seed has " + say(bytes.size()) + " bytes, need 32");
    Seed seed;
    std::memcpy(seed.data(), bytes.data(), 32);
    return seed;
}

template <class T>
static Out<T> make(std::initializer_list<size_t> shape) {
    size_t count = 1;
    for (size_t s : shape) count *= s;
    T* data = static_cast<T*>(::operator new(std::max<size_t>(count, 1) * sizeof(T), std::align_val_t(64)));
    nb::capsule owner(data, [](void* p) noexcept { ::operator delete(p, std::align_val_t(64)); });
    return Out<T>(data, shape, owner);
}

static void check_gadget(int base_log, int levels, int bits) {
    require(base_log >= 1 && base_log <= bits && levels >= 1 && levels <= bits / base_log,
            "gadget of base 2^" + std::to_string(base_log) + " with " + std::to_string(levels) + " levels must fit " + std::to_string(bits) + " bits");
}

static void check_polynomial_size(size_t polynomial_size) {
    require(polynomial_size >= 128 && polynomial_size <= 8192 && !(polynomial_size & (polynomial_size - 1)),
            "polynomial_size " + say(polynomial_size) + " is not a power of two in 128..8192");
}

static void check_columns(size_t output_dimension, size_t bodies) {
    require(output_dimension >= 1 && bodies >= 1, "a key switch key has a mask and a body at least");
}

static void check_glwe(size_t glwe_dimension, size_t bodies, size_t polynomial_size, int base_log, int levels) {
    check_polynomial_size(polynomial_size);
    check_gadget(base_log, levels, 48);
    require(glwe_dimension >= 1 && glwe_dimension <= 16, "glwe_dimension " + say(glwe_dimension) + " is not in 1..16");
    require(bodies >= 1 && bodies <= 16, "bodies " + say(bodies) + " is not in 1..16");
}

// Whether there are loops for rows of so many bodies.
static void check_rotation(size_t glwe_dimension, size_t bodies, size_t polynomial_size, int base_log, int levels) {
    check_glwe(glwe_dimension, bodies, polynomial_size, base_log, levels);
    const size_t columns = glwe_dimension + bodies;
    bool known = false;
#define CS_SHAPE(COLUMNS, LEVELS) known |= columns == COLUMNS && levels == LEVELS;
    CS_ROTATION_SHAPES
#undef CS_SHAPE
    require(known, "no kernel for glwe_dimension " + say(glwe_dimension) + " with " + std::to_string(levels) + " levels and rows of " +
                       say(bodies) + " bodies");
}

// The GIL is dropped in `call`; everything it touches has been checked.
template <class Call>
static void without_gil(Call call) {
    nb::gil_scoped_release release;
    call();
}

static Out<uint32_t> chacha20(const nb::bytes& key, uint32_t counter, In<uint32_t, 1> nonce, size_t blocks) {
    const Seed seed = seed_from(key);
    require(nonce.shape(0) == 3, "nonce has " + say(nonce.shape(0)) + " words, need 3");
    auto out = make<uint32_t>({blocks * 16});
    kernel().chacha20_blocks(seed.data(), counter, nonce.data(), blocks, out.data());
    return out;
}

static Out<int8_t> uniform_binary(const nb::bytes& seed, size_t count, uint64_t index) {
    RandomStream stream(seed_from(seed), kSecretBits, index);
    auto out = make<int8_t>({count});
    uint32_t word = 0;
    for (size_t i = 0; i < count; ++i, word >>= 1) {
        if (i % 32 == 0) word = stream.word();
        out.data()[i] = (int8_t)(word & 1);
    }
    return out;
}

// Each block of `length` bits is one of its length + 1 patterns with at most a single one, all alike likely.
static Out<int8_t> block_binary_key(const nb::bytes& seed, size_t blocks, size_t length) {
    require(length >= 1, "a block has at least one bit");
    auto out = make<int8_t>({blocks * length});
    block_binary(seed_from(seed), blocks, length, out.data());
    return out;
}

static Out<double> gaussian(const nb::bytes& seed, size_t count, double std_dev) {
    RandomStream stream(seed_from(seed), kTest, 0);
    auto out = make<double>({count});
    for (size_t i = 0; i < count; ++i) out.data()[i] = stream.normal() * std_dev;
    return out;
}

template <bool Forward>
static Out<uint64_t> ntt(In<uint64_t, 1> x, uint64_t modulus) {
    const Ntt transform(x.shape(0), modulus);
    auto out = make<uint64_t>({x.shape(0)});
    for (size_t j = 0; j < x.shape(0); ++j) {
        require(x.data()[j] < modulus, "residue " + say(j) + " is not below the modulus");
        out.data()[j] = x.data()[j];
    }
    if (Forward) transform.forward(out.data());
    else transform.inverse(out.data());
    return out;
}

static Out<uint32_t> key_switch_key_bodies(In<int8_t, 2> input_keys, In<int8_t, 2> output_keys, int base_log, int levels, double std_dev,
                                           size_t first_row, const nb::bytes& mask_seed, const nb::bytes& noise_seed, size_t threads) {
    check_gadget(base_log, levels, 31);
    require(input_keys.shape(0) == output_keys.shape(0), "one input key and one output key for each body");
    const LweKeySwitchShape shape{input_keys.shape(1), output_keys.shape(1), input_keys.shape(0), base_log, levels, first_row};
    check_columns(shape.output_dimension, shape.bodies);
    const Seed masks = seed_from(mask_seed), noise = seed_from(noise_seed);
    auto out = make<uint32_t>({shape.rows(), shape.bodies});
    without_gil([&] { key_switch_bodies(shape, input_keys.data(), output_keys.data(), std_dev, masks, noise, threads, out.data()); });
    return out;
}

static Out<uint32_t> expand_key_switch(In<uint32_t, 2> bodies, const nb::bytes& mask_seed, size_t first_row, size_t output_dimension, size_t threads) {
    const LweKeySwitchShape shape{bodies.shape(0), output_dimension, bodies.shape(1), 1, 1, first_row};
    check_columns(output_dimension, shape.bodies);
    const Seed masks = seed_from(mask_seed);
    auto out = make<uint32_t>({key_switch_tiles(output_dimension + shape.bodies), shape.rows(), KEY_TILE});
    without_gil([&] { expand_key_switch_key(shape, bodies.data(), masks, threads, out.data()); });
    return out;
}

static Out<uint64_t> bootstrapping_key_bodies(In<int8_t, 2> bits, In<int8_t, 3> glwe_keys, int base_log, int levels, double std_dev,
                                              const nb::bytes& mask_seed, const nb::bytes& noise_seed, int body_bits, size_t threads) {
    require(bits.shape(1) == glwe_keys.shape(0), "one bit of an entry and one GLWE key for each body");
    require(body_bits >= 1 && body_bits <= 64, "body_bits must be in 1..64");
    const size_t bodies = glwe_keys.shape(0), k = glwe_keys.shape(1);
    const RingKeyShape shape{bits.shape(0), k + bodies, k, bodies, glwe_keys.shape(2), base_log, levels};
    check_rotation(k, bodies, shape.polynomial_size, base_log, levels);
    const Seed masks = seed_from(mask_seed), noise = seed_from(noise_seed);
    const RingKeySecrets of{glwe_keys.data(), std_dev, masks, noise, body_bits};
    auto out = make<uint64_t>({shape.entries, shape.rows(), bodies, shape.polynomial_size});
    without_gil([&] { bootstrap_bodies(shape, bits.data(), of, threads, out.data()); });
    return out;
}

static Out<uint64_t> ring_switch_key_bodies(In<int8_t, 4> sources, In<int8_t, 3> glwe_keys, int base_log, int levels, double std_dev,
                                            size_t first_entry, const nb::bytes& mask_seed, const nb::bytes& noise_seed, int body_bits,
                                            size_t threads) {
    const size_t bodies = glwe_keys.shape(0), k = glwe_keys.shape(1), n = glwe_keys.shape(2);
    require(sources.shape(2) == bodies && sources.shape(3) == n, "one source of the ring's size for each GLWE key");
    require(body_bits >= 1 && body_bits <= 64, "body_bits must be in 1..64");
    check_glwe(k, bodies, n, base_log, levels);
    const RingKeyShape shape{sources.shape(0), sources.shape(1), k, bodies, n, base_log, levels, first_entry};
    const Seed masks = seed_from(mask_seed), noise = seed_from(noise_seed);
    const RingKeySecrets of{glwe_keys.data(), std_dev, masks, noise, body_bits};
    auto out = make<uint64_t>({shape.entries, shape.rows(), bodies, n});
    without_gil([&] { ring_switch_bodies(shape, sources.data(), of, threads, out.data()); });
    return out;
}

static Out<double> expand_ring(In<uint64_t, 4> bodies, const nb::bytes& mask_seed, size_t first_entry, size_t glwe_dimension, int base_log,
                               int levels, size_t threads) {
    check_glwe(glwe_dimension, bodies.shape(2), bodies.shape(3), base_log, levels);
    require(bodies.shape(1) % (size_t)levels == 0, "an entry has " + say(bodies.shape(1)) + " rows, need a multiple of " + std::to_string(levels));
    const RingKeyShape shape{bodies.shape(0), bodies.shape(1) / levels, glwe_dimension, bodies.shape(2), bodies.shape(3), base_log, levels, first_entry};
    const Seed masks = seed_from(mask_seed);
    auto out = make<double>({shape.entries, shape.polynomial_size / 2, shape.columns(), shape.rows(), 2});
    without_gil([&] { expand_ring_key(shape, bodies.data(), masks, fft_tables(shape.polynomial_size), threads, out.data()); });
    return out;
}

// The masks of one entry, [rows][k][N]: what the bodies were computed from; for tests of the key's noise.
static Out<uint64_t> ring_masks(const nb::bytes& mask_seed, size_t index, size_t rows, size_t glwe_dimension, size_t polynomial_size) {
    const RingKeyShape shape{1, rows, glwe_dimension, 1, polynomial_size, 1, 1};
    auto out = make<uint64_t>({rows, glwe_dimension, polynomial_size});
    ring_key_masks(shape, seed_from(mask_seed), index, out.data());
    return out;
}

static Out<uint32_t> merge(In<uint32_t, 2> in, In<double, 5> key, size_t bodies, int base_log, int levels, size_t threads) {
    const size_t sources = key.shape(0), n = 2 * key.shape(1), columns = key.shape(2);
    require(bodies >= 1 && bodies < columns, "a key has a mask and " + say(bodies) + " bodies");
    check_glwe(columns - bodies, bodies, n, base_log, levels);
    require(key.shape(3) == bodies * (size_t)levels && key.shape(4) == 2, "merge key has the wrong shape");
    require(sources >= 1 && in.shape(1) == sources * n + 1, "LWE list has " + say(in.shape(1)) + " words, the key is for " + say(sources * n + 1));
    MergeJob job{in.shape(0), sources, columns - bodies, n, bodies, base_log, levels, in.data(), key.data(), fft_tables(n), nullptr};
    auto out = make<uint32_t>({job.rows(), job.glwe_dimension * n + bodies});
    job.out = out.data();
    without_gil([&] {
        share((job.rows() + kernel().lanes - 1) / kernel().lanes, threads, MAX_GROUPS, [&](size_t begin, size_t end, size_t) {
            const Scratch scratch(kernel().merge_scratch(job));
            kernel().merge(job, begin, end, scratch.get());
        });
    });
    return out;
}

static Out<uint32_t> key_switch(In<uint32_t, 2> in, In<uint32_t, 3> key, size_t output_dimension, int base_log, int levels, bool binary_key,
                                size_t bodies, size_t threads) {
    check_gadget(base_log, levels, 31);
    require(base_log <= 6, "a key switch looks up digits of at most 6 bits, not " + std::to_string(base_log));
    check_columns(output_dimension, bodies);
    require(in.shape(1) > bodies, "a row needs a mask and its bodies");
    require(key.shape(0) == key_switch_tiles(output_dimension + bodies) && key.shape(2) == KEY_TILE,
            "key switch key has the wrong number of columns");
    KeySwitchJob job{in.shape(0), in.shape(1) - bodies, output_dimension, bodies, base_log, levels, binary_key, in.data(), key.data(), nullptr};
    require(key.shape(1) == job.input_dimension * (size_t)levels,
            "key switch key has " + say(key.shape(1)) + " rows, need " + say(job.input_dimension * (size_t)levels));
    auto out = make<uint32_t>({job.count, output_dimension + bodies});
    job.out = out.data();
    without_gil([&] {
        const Scratch digits(kernel().key_switch_digit_bytes(job));
        uint8_t* const at = static_cast<uint8_t*>(digits.get());
        share(job.count, threads, 16, [&](size_t begin, size_t end, size_t) { kernel().key_switch_digits(job, begin, end, at); });
        share(key_switch_tiles(output_dimension + bodies), threads, 1, [&](size_t tile, size_t, size_t) {
            const Scratch scratch(kernel().key_switch_scratch(job));
            kernel().key_switch_tile(job, at, tile, scratch.get());
        });
    });
    return out;
}

static int64_t floor_divide(int64_t x, int64_t positive) { return (x - ((x % positive) + positive) % positive) / positive; }

// Rounds mask and bodies from 2^32 to 2N, taking the mean of the mask's rounding error under the key out of each body: the part 1 / (l + 1)
// of it where the key is binary in blocks of l.
static Out<int32_t> modulus_switch(In<uint32_t, 2> in, size_t polynomial_size, size_t block_length, size_t bodies) {
    require(polynomial_size >= 2 && polynomial_size <= 1u << 20 && !(polynomial_size & (polynomial_size - 1)),
            "polynomial_size is not a power of two");
    require(block_length >= 1 && block_length <= 64, "block_length " + say(block_length) + " is not in 1..64");
    require(bodies >= 1 && in.shape(1) > bodies, "a row needs a mask and its bodies");
    const int shift = 31 - __builtin_ctzll(polynomial_size);
    const size_t words = in.shape(1), n = words - bodies;
    const uint32_t half = 1u << (shift - 1), modulus_mask = (uint32_t)(2 * polynomial_size - 1);
    auto out = make<int32_t>({in.shape(0), words});
    without_gil([&] {
        for (size_t c = 0; c < in.shape(0); ++c) {
            const uint32_t* row = in.data() + c * words;
            int32_t* switched = out.data() + c * words;
            int64_t error = 0;
            for (size_t j = 0; j < n; ++j) {
                const uint32_t rounded = (row[j] + half) >> shift;
                error += (int32_t)(row[j] - (rounded << shift));
                switched[j] = (int32_t)(rounded & modulus_mask);
            }
            for (size_t j = n; j < words; ++j) {
                const uint32_t body = row[j] - (uint32_t)floor_divide(error, (int64_t)block_length + 1);
                switched[j] = (int32_t)(((body + half) >> shift) & modulus_mask);
            }
        }
    });
    return out;
}

static BlindRotateJob rotate_job(In<int32_t, 2>& switched, In<double, 2>& tables, In<int32_t, 1>& index, In<double, 5>& key, int base_log,
                                 int levels, int grouping_factor, int block_length, size_t bodies) {
    const size_t columns = key.shape(2), n = tables.shape(1);
    require(bodies >= 1 && bodies < columns, "a bootstrapping key has a mask and a body at least");
    require(key.shape(1) == n / 2 && key.shape(3) == columns * (size_t)levels && key.shape(4) == 2, "bootstrapping key has the wrong shape");
    require(grouping_factor == 1 || grouping_factor == 2, "grouping_factor must be 1 or 2, not " + std::to_string(grouping_factor));
    require(block_length >= 1 && block_length <= 4, "block_length must be in 1..4, not " + std::to_string(block_length));
    require(block_length == 1 || grouping_factor == 1, "a step takes a pair of bits or a block, not pairs of blocks");
    const size_t bits = (size_t)(grouping_factor * block_length), keys = block_length > 1 ? bits : (1u << grouping_factor) - 1;
    const size_t steps = key.shape(0) / keys, words = steps * bits, rows = switched.shape(0), count = index.shape(0);
    require(key.shape(0) == steps * keys, "bootstrapping key has " + say(key.shape(0)) + " entries, a step needs " + say(keys));
    require(switched.shape(1) == words + bodies,
            "LWE list has " + say(switched.shape(1)) + " words, parameters need " + say(words + bodies));
    check_rotation(columns - bodies, bodies, n, base_log, levels);
    require((count + bodies - 1) / bodies == rows, "one table index for each of the values of " + say(rows) + " rows, not " + say(count));
    for (size_t i = 0; i < count; ++i)
        require(index.data()[i] >= 0 && (size_t)index.data()[i] < tables.shape(0), "table index " + say(i) + " is out of range");
    for (size_t i = 0; i < switched.size(); ++i)
        require(switched.data()[i] >= 0 && (size_t)switched.data()[i] < 2 * n, "switched word " + say(i) + " is not below 2N");
    return {rows, count, words, columns - bodies, n, bodies, base_log, levels, (int)bits, (int)keys, switched.data(), tables.data(),
            index.data(), nullptr, key.data(), nullptr, fft_tables(n), nullptr};
}

// Shares groups of `lanes` rows among threads: call(begin, end, scratch).
template <class Call>
static void share_rotation(const BlindRotateJob& job, size_t threads, Call call) {
    without_gil([&] {
        share((job.rows + kernel().lanes - 1) / kernel().lanes, threads, MAX_GROUPS, [&](size_t begin, size_t end, size_t) {
            const Scratch scratch(kernel().blind_rotate_scratch(job));
            call(begin, end, scratch.get());
        });
    });
}

static Out<uint32_t> blind_rotate(In<int32_t, 2> switched, In<double, 2> tables, In<int32_t, 1> index, In<double, 5> key, int base_log,
                                  int levels, int grouping_factor, int block_length, size_t bodies, size_t threads,
                                  std::optional<In<double, 5>> split_key, std::optional<In<int32_t, 1>> second) {
    BlindRotateJob job = rotate_job(switched, tables, index, key, base_log, levels, grouping_factor, block_length, bodies);
    const size_t k = job.glwe_dimension;
    require(bodies == 1 || split_key, "rows of " + say(bodies) + " bodies need a split key");
    if (split_key) {
        require(split_key->shape(0) == (bodies - 1) * k && split_key->shape(1) == job.polynomial_size / 2 && split_key->shape(2) == k + 1 &&
                    split_key->shape(3) == (size_t)levels && split_key->shape(4) == 2,
                "split key has the wrong shape");
        job.split_key = split_key->data();
    }
    if (second) {
        require(second->shape(0) == tables.shape(0), "one second coefficient per table");
        for (size_t i = 0; i < second->shape(0); ++i)
            require(second->data()[i] >= 1 && (size_t)second->data()[i] < 2 * job.polynomial_size, "second coefficient " + say(i) + " is not in 1..2N-1");
        job.second = second->data();
    }
    auto out = make<uint32_t>({job.count * (second ? 2 : 1), k * job.polynomial_size + 1});
    job.out = out.data();
    share_rotation(job, threads, [&](size_t begin, size_t end, void* scratch) { kernel().blind_rotate(job, begin, end, scratch); });
    return out;
}

static size_t bootstrap_floor(In<int32_t, 2> switched, In<double, 2> tables, In<int32_t, 1> index, In<double, 5> key, int base_log, int levels,
                              int grouping_factor, int block_length, size_t bodies, size_t threads) {
    const BlindRotateJob job = rotate_job(switched, tables, index, key, base_log, levels, grouping_factor, block_length, bodies);
    share_rotation(job, threads, [&](size_t begin, size_t end, void* scratch) { kernel().bootstrap_floor(job, end - begin, scratch); });
    return (job.rows + kernel().lanes - 1) / kernel().lanes * kernel().lanes;
}

static Out<uint32_t> linear(In<uint32_t, 2> in, In<int64_t, 1> indptr, In<int32_t, 1> indices, In<int8_t, 1> exponents, In<int8_t, 1> signs,
                            size_t threads) {
    require(indptr.shape(0) >= 1 && indptr.data()[0] == 0, "indptr must start with 0");
    const size_t outputs = indptr.shape(0) - 1, nnz = indices.shape(0);
    require(exponents.shape(0) == nnz && signs.shape(0) == nnz, "one exponent and one sign per index");
    for (size_t o = 0; o < outputs; ++o) {
        const int64_t begin = indptr.data()[o], end = indptr.data()[o + 1];
        require(begin <= end && (size_t)end <= nnz, "indptr must not fall");
        for (int64_t e = begin; e < end; ++e) {
            require(indices.data()[e] >= 0 && (size_t)indices.data()[e] < in.shape(0), "column index out of range in output " + say(o));
            require(exponents.data()[e] >= 0 && exponents.data()[e] < 32, "exponent must be in 0..31 in output " + say(o));
            require(e == begin || exponents.data()[e] <= exponents.data()[e - 1], "exponents must fall within output " + say(o));
            require(signs.data()[e] == 1 || signs.data()[e] == -1, "sign must be 1 or -1 in output " + say(o));
        }
    }
    // By the first row that an output reads: of a convolution, the filters at one place follow each other.
    std::vector<int32_t> first(outputs, INT32_MAX);
    for (size_t o = 0; o < outputs; ++o)
        for (int64_t e = indptr.data()[o]; e < indptr.data()[o + 1]; ++e) first[o] = std::min(first[o], indices.data()[e]);
    std::vector<int64_t> order(outputs);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return first[a] < first[b]; });
    auto out = make<uint32_t>({outputs, in.shape(1)});
    const LinearJob job{outputs,        in.shape(1),  in.data(),    indptr.data(), indices.data(),
                        exponents.data(), signs.data(), order.data(), out.data()};
    without_gil([&] {
        share(outputs, threads, 256, [&](size_t begin, size_t end, size_t) { kernel().linear(job, begin, end, nullptr); });
    });
    return out;
}

static Out<double> negacyclic_product(In<double, 2> a, In<double, 2> b) {
    const size_t lanes = kernel().lanes, n = a.shape(1);
    require(a.shape(0) == lanes && b.shape(0) == lanes && b.shape(1) == n, "both operands need one row per lane and equal length");
    check_polynomial_size(n);
    auto out = make<double>({lanes, n});
    const Scratch scratch(2 * n * lanes * 8);
    kernel().negacyclic_product(a.data(), b.data(), n, fft_tables(n), scratch.get(), out.data());
    return out;
}

static void require_residues(const uint64_t* x, size_t count, uint64_t modulus, const char* of) {
    const uint64_t* wrong = std::find_if(x, x + count, [&](uint64_t residue) { return residue >= modulus; });
    if (wrong != x + count) require(false, std::string(of) + " residue " + say((size_t)(wrong - x)) + " is not below the modulus");
}

static AnswerRing answer_ring(size_t degree, uint64_t modulus, size_t big_dimension, int base_log, int levels) {
    check_gadget(base_log, levels, 48);
    require(modulus >> (base_log * levels), "gadget of base 2^" + say(base_log) + " with " + say(levels) + " levels must fit the modulus");
    require(big_dimension >= 1 && big_dimension <= degree, "big dimension " + say(big_dimension) + " exceeds the answer ring's degree " + say(degree));
    return AnswerRing(degree, modulus, {big_dimension, base_log, levels});
}

static void check_answer_rows(const AnswerRing& ring, size_t rows) {
    require(rows == ring.rows(), "answer key has " + say(rows) + " rows, need " + say(ring.rows()));
}

static Out<uint64_t> answer_key_bodies(In<int8_t, 1> big_key, In<int8_t, 1> secret, uint64_t modulus, int base_log, int levels, double std_dev,
                                       const nb::bytes& mask_seed, const nb::bytes& noise_seed) {
    const AnswerRing ring = answer_ring(secret.shape(0), modulus, big_key.shape(0), base_log, levels);
    const Seed masks = seed_from(mask_seed), noise = seed_from(noise_seed);
    auto out = make<uint64_t>({ring.rows(), ring.degree()});
    without_gil([&] { ring.bodies(big_key.data(), secret.data(), std_dev, masks, noise, out.data()); });
    return out;
}

static Out<uint64_t> expand_answer_key(In<uint64_t, 2> bodies, const nb::bytes& mask_seed, uint64_t modulus, int base_log, int levels) {
    const size_t n = bodies.shape(1);
    const AnswerRing ring = answer_ring(n, modulus, 1, base_log, levels);
    check_answer_rows(ring, bodies.shape(0));
    const Seed masks = seed_from(mask_seed);
    auto out = make<uint64_t>({ring.rows(), 2, n});
    without_gil([&] {
        for (size_t row = 0; row < ring.rows(); ++row) {
            std::memcpy(out.data() + 2 * row * n, bodies.data() + row * n, n * 8);
            ring.mask(masks, row, out.data() + (2 * row + 1) * n);
        }
    });
    return out;
}

static Out<uint64_t> packing_key_switch(In<uint32_t, 2> in, In<uint64_t, 3> key, uint64_t modulus, int base_log, int levels,
                                        double error_std_dev, double flooding_std_dev, const nb::bytes& seed, size_t threads) {
    const size_t n = key.shape(2);
    require(in.shape(1) >= 2, "a row needs a mask and a body");
    const AnswerRing ring = answer_ring(n, modulus, in.shape(1) - 1, base_log, levels);
    check_answer_rows(ring, key.shape(0));
    require(key.shape(1) == 2, "answer key has the wrong shape");
    require(in.shape(0) >= 1 && in.shape(0) <= n, "cannot pack " + say(in.shape(0)) + " ciphertexts into degree " + say(n));
    require_residues(key.data(), key.size(), modulus, "answer key");
    const Seed randomness = seed_from(seed);
    auto out = make<uint64_t>({2, n});
    without_gil([&] {
        ring.pack(in.data(), in.shape(0), key.data(), error_std_dev, flooding_std_dev, randomness, threads, out.data(), out.data() + n);
    });
    return out;
}

static Out<uint64_t> packing_products(In<uint64_t, 3> in, In<int32_t, 2> weights, In<uint64_t, 1> bias, In<uint64_t, 3> key, uint64_t modulus,
                                      int base_log, int levels, double error_std_dev, double flooding_std_dev, const nb::bytes& seed,
                                      size_t threads) {
    const size_t n = key.shape(2), elements = in.shape(0), count = weights.shape(0), columns = weights.shape(1);
    const AnswerRing ring = answer_ring(n, modulus, 1, base_log, levels);
    check_answer_rows(ring, key.shape(0));
    require(key.shape(1) == 2, "answer key has the wrong shape");
    require(in.shape(1) == 2 && in.shape(2) == n, "ring elements have the wrong shape");
    require(columns >= 1 && elements == (columns + n - 1) / n, say(columns) + " messages do not fill " + say(elements) + " ring elements");
    require(count >= 1 && count <= n && bias.shape(0) == count, "cannot pack " + say(count) + " sums into degree " + say(n));
    require_residues(key.data(), key.size(), modulus, "answer key");
    require_residues(in.data(), in.size(), modulus, "ring element");
    require_residues(bias.data(), count, modulus, "bias");
    const Seed randomness = seed_from(seed);
    auto out = make<uint64_t>({2, n});
    without_gil([&] {
        std::vector<uint64_t> transformed(in.data(), in.data() + in.size());
        ring.pack_products(transformed.data(), elements, weights.data(), columns, bias.data(), count, key.data(), error_std_dev, flooding_std_dev,
                           randomness, threads, out.data(), out.data() + n);
    });
    return out;
}

NB_MODULE(_kernel, m) {
    m.doc() = "Native kernel: integers on the torus in, integers out; the GIL is released while it works.";
    m.def("isa", [] { return std::string(kernel().name); }, "Instruction set in use: avx512, avx2 or portable.");
    m.def("lanes", [] { return kernel().lanes; }, "Ciphertexts that one bootstrap step handles side by side.");
    m.def("chacha20", &chacha20, nb::arg("key"), nb::arg("counter"), nb::arg("nonce").noconvert(), nb::arg("blocks"));
    m.def("uniform_binary", &uniform_binary, nb::arg("seed"), nb::arg("count"), nb::arg("index"));
    m.def("block_binary", &block_binary_key, nb::arg("seed"), nb::arg("blocks"), nb::arg("length"));
    m.def("gaussian", &gaussian, nb::arg("seed"), nb::arg("count"), nb::arg("std_dev"));
    m.def("ntt_forward", &ntt<true>, nb::arg("x").noconvert(), nb::arg("modulus"));
    m.def("ntt_inverse", &ntt<false>, nb::arg("x").noconvert(), nb::arg("modulus"));
    m.def("key_switch_key_bodies", &key_switch_key_bodies, nb::arg("input_keys").noconvert(), nb::arg("output_keys").noconvert(), nb::kw_only(),
          nb::arg("base_log"), nb::arg("levels"), nb::arg("std_dev"), nb::arg("first_row"), nb::arg("mask_seed"), nb::arg("noise_seed"), nb::arg("threads"));
    m.def("expand_key_switch_key", &expand_key_switch, nb::arg("bodies").noconvert(), nb::kw_only(), nb::arg("mask_seed"), nb::arg("first_row"),
          nb::arg("output_dimension"), nb::arg("threads"));
    m.def("bootstrapping_key_bodies", &bootstrapping_key_bodies, nb::arg("bits").noconvert(), nb::arg("glwe_keys").noconvert(), nb::kw_only(),
          nb::arg("base_log"), nb::arg("levels"), nb::arg("std_dev"), nb::arg("mask_seed"), nb::arg("noise_seed"), nb::arg("body_bits"),
          nb::arg("threads"));
    m.def("ring_switch_key_bodies", &ring_switch_key_bodies, nb::arg("sources").noconvert(), nb::arg("glwe_keys").noconvert(), nb::kw_only(),
          nb::arg("base_log"), nb::arg("levels"), nb::arg("std_dev"), nb::arg("first_entry"), nb::arg("mask_seed"), nb::arg("noise_seed"),
          nb::arg("body_bits"), nb::arg("threads"));
    m.def("expand_ring_key", &expand_ring, nb::arg("bodies").noconvert(), nb::kw_only(), nb::arg("mask_seed"), nb::arg("first_entry"),
          nb::arg("glwe_dimension"), nb::arg("base_log"), nb::arg("levels"), nb::arg("threads"));
    m.def("ring_key_masks", &ring_masks, nb::kw_only(), nb::arg("mask_seed"), nb::arg("index"), nb::arg("rows"),
          nb::arg("glwe_dimension"), nb::arg("polynomial_size"));
    m.def("merge", &merge, nb::arg("x").noconvert(), nb::arg("key").noconvert(), nb::kw_only(), nb::arg("bodies"), nb::arg("base_log"),
          nb::arg("levels"), nb::arg("threads"));
    m.def("key_switch", &key_switch, nb::arg("x").noconvert(), nb::arg("key").noconvert(), nb::kw_only(), nb::arg("output_dimension"),
          nb::arg("base_log"), nb::arg("levels"), nb::arg("binary_key"), nb::arg("bodies") = 1, nb::arg("threads"));
    m.def("modulus_switch", &modulus_switch, nb::arg("x").noconvert(), nb::kw_only(), nb::arg("polynomial_size"),
          nb::arg("block_length") = 1, nb::arg("bodies") = 1);
    m.def("blind_rotate", &blind_rotate, nb::arg("switched").noconvert(), nb::arg("tables").noconvert(), nb::arg("table_index").noconvert(),
          nb::arg("fourier_bsk").noconvert(), nb::kw_only(), nb::arg("base_log"), nb::arg("levels"), nb::arg("grouping_factor"),
          nb::arg("block_length") = 1, nb::arg("bodies") = 1, nb::arg("threads"), nb::arg("split_key").noconvert() = nb::none(),
          nb::arg("second").noconvert() = nb::none());
    m.def("bootstrap_floor", &bootstrap_floor, nb::arg("switched").noconvert(), nb::arg("tables").noconvert(), nb::arg("table_index").noconvert(),
          nb::arg("fourier_bsk").noconvert(), nb::kw_only(), nb::arg("base_log"), nb::arg("levels"), nb::arg("grouping_factor"),
          nb::arg("block_length") = 1, nb::arg("bodies") = 1, nb::arg("threads"));
    m.def("linear", &linear, nb::arg("x").noconvert(), nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(),
          nb::arg("exponents").noconvert(), nb::arg("signs").noconvert(), nb::kw_only(), nb::arg("threads"));
    m.def("negacyclic_product", &negacyclic_product, nb::arg("a").noconvert(), nb::arg("b").noconvert());
    m.def("answer_key_bodies", &answer_key_bodies, nb::arg("big_key").noconvert(), nb::arg("secret").noconvert(), nb::kw_only(),
          nb::arg("modulus"), nb::arg("base_log"), nb::arg("levels"), nb::arg("std_dev"), nb::arg("mask_seed"), nb::arg("noise_seed"));
    m.def("expand_answer_key", &expand_answer_key, nb::arg("bodies").noconvert(), nb::kw_only(), nb::arg("mask_seed"), nb::arg("modulus"),
          nb::arg("base_log"), nb::arg("levels"));
    m.def("packing_key_switch", &packing_key_switch, nb::arg("x").noconvert(), nb::arg("key").noconvert(), nb::kw_only(), nb::arg("modulus"),
          nb::arg("base_log"), nb::arg("levels"), nb::arg("error_std_dev"), nb::arg("flooding_std_dev"), nb::arg("seed"), nb::arg("threads"));
    m.def("packing_products", &packing_products, nb::arg("x").noconvert(), nb::arg("weights").noconvert(), nb::arg("bias").noconvert(),
          nb::arg("key").noconvert(), nb::kw_only(), nb::arg("modulus"), nb::arg("base_log"), nb::arg("levels"), nb::arg("error_std_dev"),
          nb::arg("flooding_std_dev"), nb::arg("seed"), nb::arg("threads"));
}
