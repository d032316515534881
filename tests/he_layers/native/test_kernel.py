"""The kernel, function by function, against tests/support/reference.py: bit for bit where integer, within a stated bound where FFT."""

import os
from typing import Any

import numpy as np
import pytest

from ciphershift.he_layers.native import _kernel
from tests.support import reference

PRIME, DEGREE = 4188161, 64  # 1 modulo 2048, hence modulo 128
RNG = np.random.default_rng(7)


def words(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2**32, shape, dtype=np.uint32)


def rotate_words(*, n: int, entries: int, **steps: Any) -> np.ndarray:
    """A blind rotation of zeros whose list and key have these sizes."""
    switched, table, key = np.zeros((1, n + 1), np.int32), np.zeros((1, 128)), np.zeros((entries, 64, 2, 2, 2))
    return _kernel.blind_rotate(switched, table, np.zeros(1, np.int32), key, base_log=23, levels=1, threads=1, **steps)


def test_chacha20_gives_the_block_of_rfc_8439() -> None:
    key, nonce = bytes(range(32)), np.array([0x09000000, 0x4A000000, 0], dtype=np.uint32)
    block = _kernel.chacha20(key, 1, nonce, 1).astype("<u4").tobytes()
    assert block.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_chacha20_counts_blocks_across_vectors() -> None:
    key, nonce = os.urandom(32), words(3)
    assert np.array_equal(_kernel.chacha20(key, 2**32 - 5, nonce, 37), reference.chacha20(key, 2**32 - 5, nonce, 37))


def test_ntt_evaluates_at_the_odd_powers_in_bit_reversed_order() -> None:
    x = RNG.integers(0, PRIME, DEGREE, dtype=np.uint64)
    transformed = _kernel.ntt_forward(x, PRIME)
    assert transformed.tolist() == reference.ntt(x, PRIME)
    assert np.array_equal(_kernel.ntt_inverse(transformed, PRIME), x)


@pytest.mark.parametrize("modulus", [4188161 + 2, 2**61 + 1, 129 * 3])
def test_ntt_refuses_a_modulus_it_cannot_use(modulus: int) -> None:
    with pytest.raises(ValueError, match="modulus"):
        _kernel.ntt_forward(np.zeros(DEGREE, dtype=np.uint64), modulus)


@pytest.mark.parametrize(("base_log", "levels"), [(2, 6), (1, 13), (4, 3), (6, 2), (3, 10)])
@pytest.mark.parametrize("binary_key", [True, False])
@pytest.mark.parametrize("bodies", [1, 2])
def test_key_switch_is_the_sum_of_digits_times_rows(base_log: int, levels: int, binary_key: bool, bodies: int) -> None:
    """Rows of one body and of two, the last column of which is the first of a third tile."""
    x, key, n = words(5, 301 + bodies), words(1 + bodies, 301 * levels, 32), 63
    got = _kernel.key_switch(
        x,
        key,
        output_dimension=n,
        base_log=base_log,
        levels=levels,
        binary_key=binary_key,
        bodies=bodies,
        threads=2,
    )
    rows = np.concatenate(key, axis=1)[:, : n + bodies]
    assert np.array_equal(got, reference.key_switch(x, rows, base_log, levels, binary_key, bodies))


@pytest.mark.parametrize("polynomial_size", [128, 512, 2048])
@pytest.mark.parametrize(("block_length", "bodies"), [(1, 1), (2, 1), (3, 1), (4, 1), (3, 2)])
def test_modulus_switch_rounds_and_takes_the_mean_error_from_the_body(
    polynomial_size: int, block_length: int, bodies: int
) -> None:
    x = words(40, 100 + bodies)
    x[0], x[1, -1] = 2**32 - 1, 2**31
    got = _kernel.modulus_switch(x, polynomial_size=polynomial_size, block_length=block_length, bodies=bodies)
    assert np.array_equal(got, reference.modulus_switch(x, polynomial_size, block_length, bodies))


def test_linear_is_the_integer_matrix_product_modulo_two_to_the_32() -> None:
    x = words(9, 1100)
    matrix = RNG.choice(np.array([0, 0, 1, -1, 2, -8, 64]), (6, 9))
    matrix[2] = 0  # an output that reads nothing
    rows, columns = np.nonzero(matrix)
    values = matrix[rows, columns]
    exponents = np.log2(np.abs(values)).astype(np.int8)
    order = np.lexsort((-exponents, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=6))]).astype(np.int64)
    got = _kernel.linear(
        x, indptr, columns[order].astype(np.int32), exponents[order], np.sign(values[order]).astype(np.int8), threads=2
    )
    assert np.array_equal(got, (matrix @ x.astype(np.int64) % 2**32).astype(np.uint32))


@pytest.mark.parametrize("polynomial_size", [128, 256, 512, 1024, 2048])
def test_fourier_product_is_the_negacyclic_product(polynomial_size: int) -> None:
    """Digits of 12 bits times fractions of the torus of 26 bits: the exact sums have 48 bits, the transform keeps 2^-45 of them."""
    lanes = _kernel.lanes()
    a = RNG.integers(-(2**11), 2**11, (lanes, polynomial_size))
    b = RNG.integers(-(2**25), 2**25, (lanes, polynomial_size))
    got = _kernel.negacyclic_product(a.astype(np.float64), b / 2.0**26)
    for lane in range(lanes):
        exact = reference.negacyclic(a[lane], b[lane]).astype(np.float64) / 2.0**26
        assert np.abs(got[lane] - exact).max() < np.abs(exact).max() * 2.0**-45


@pytest.mark.parametrize(("k", "base_log", "levels", "w"), [(1, 12, 2, 1), (4, 23, 1, 1), (4, 23, 1, 2)])
def test_bootstrapping_key_bodies_are_exact(k: int, base_log: int, levels: int, w: int) -> None:
    """Without noise a body is the product of masks and its key, plus its message, modulo 2^64, to the last bit."""
    n, size = 3, 128
    bits = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.int8)[:w].T.copy()
    glwe_keys = RNG.integers(0, 2, (w, k, size)).astype(np.int8)
    seed = os.urandom(32)
    bodies = _kernel.bootstrapping_key_bodies(
        bits,
        glwe_keys,
        base_log=base_log,
        levels=levels,
        std_dev=0.0,
        mask_seed=seed,
        noise_seed=os.urandom(32),
        body_bits=64,
        threads=2,
    )
    for i in range(n):
        masks = _kernel.ring_key_masks(
            mask_seed=seed, index=i, rows=(k + w) * levels, glwe_dimension=k, polynomial_size=size
        )
        for row, body in np.ndindex((k + w) * levels, w):
            p, level = divmod(row, levels)
            message = -glwe_keys[body, p].astype(object) if p < k else (p == k + body) * np.eye(size, dtype=object)[0]
            want = int(bits[i, body]) * message * 2 ** (64 - base_log * (level + 1))
            want = want + sum(reference.negacyclic(masks[row, q], glwe_keys[body, q]) for q in range(k))
            assert np.array_equal(bodies[i, row, body], (want % 2**64).astype(np.uint64))


@pytest.mark.parametrize(("k", "base_log", "levels", "w"), [(1, 12, 2, 1), (4, 23, 1, 2)])
def test_ring_switch_key_bodies_are_exact(k: int, base_log: int, levels: int, w: int) -> None:
    """Likewise, for sources with coefficients of -1, 0 and 1, from the fifth entry of the seed on."""
    entries, parts, size, seed = 2, 3, 128, os.urandom(32)
    sources = RNG.integers(-1, 2, (entries, parts, w, size)).astype(np.int8)
    glwe_keys = RNG.integers(0, 2, (w, k, size)).astype(np.int8)
    options: dict[str, Any] = {"base_log": base_log, "levels": levels, "std_dev": 0.0, "body_bits": 64, "threads": 2}
    bodies = _kernel.ring_switch_key_bodies(
        sources, glwe_keys, **options, first_entry=5, mask_seed=seed, noise_seed=os.urandom(32)
    )
    for i in range(entries):
        masks = _kernel.ring_key_masks(
            mask_seed=seed, index=5 + i, rows=parts * levels, glwe_dimension=k, polynomial_size=size
        )
        for row, body in np.ndindex(parts * levels, w):
            part, level = divmod(row, levels)
            want = -sources[i, part, body].astype(object) * 2 ** (64 - base_log * (level + 1))
            want = want + sum(reference.negacyclic(masks[row, q], glwe_keys[body, q]) for q in range(k))
            assert np.array_equal(bodies[i, row, body], (want % 2**64).astype(np.uint64))


def ring_switch_key(
    sources: np.ndarray, glwe_keys: np.ndarray, base_log: int, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """A key with little noise: as the kernel takes it, and its words [entries, rows, columns, N]."""
    entries, parts, _, size = sources.shape
    seed, k = os.urandom(32), glwe_keys.shape[1]
    options: dict[str, Any] = {"base_log": base_log, "levels": levels, "mask_seed": seed, "threads": 2}
    key = _kernel.ring_switch_key_bodies(
        sources, glwe_keys, **options, std_dev=2.0**-45, first_entry=0, noise_seed=os.urandom(32), body_bits=64
    )
    masks: dict[str, Any] = {"rows": parts * levels, "glwe_dimension": k, "polynomial_size": size}
    whole = [
        np.concatenate([_kernel.ring_key_masks(mask_seed=seed, index=i, **masks), key[i]], axis=1)
        for i in range(entries)
    ]
    return _kernel.expand_ring_key(key, first_entry=0, glwe_dimension=k, **options), np.stack(whole)


@pytest.mark.parametrize(("base_log", "levels"), [(23, 1), (10, 2)])
@pytest.mark.parametrize("count", [1, 6, 35])
def test_merge_is_the_exact_one_within_the_transforms_rounding(base_log: int, levels: int, count: int) -> None:
    """Every word is within 2^-24 of the torus; a place that is left over holds nothing. Odd words are never halfway between two digits."""
    k, size, entries, w = 2, 128, 3, 2
    glwe_keys = RNG.integers(0, 2, (w, k, size)).astype(np.int8)
    sources = RNG.integers(-1, 2, (entries, w, w, size)).astype(np.int8)
    key, rows = ring_switch_key(sources, glwe_keys, base_log, levels)
    x = words(count, entries * size + 1) | np.uint32(1)
    got = _kernel.merge(x, key, bodies=w, base_log=base_log, levels=levels, threads=2)
    assert got.shape == (-(-count // w), k * size + w)
    values = np.zeros((len(got) * w, entries * size + 1), dtype=object)
    values[:count] = x.astype(object) * 2**32
    for row, pair in zip(got, values.reshape(len(got), w, -1), strict=True):
        masks = pair[:, :-1].reshape(w, entries, size)
        polynomials = np.concatenate([masks[..., :1], -masks[..., :0:-1]], axis=2).swapaxes(0, 1)
        ring = reference.ring_switch(polynomials, rows, base_log, levels)
        ring[k:, 0] += pair[:, -1]
        exact = (reference.extract(ring, w) >> np.uint64(32)).astype(np.uint32)
        assert np.abs((row - exact).astype(np.int32)).max() < 2**8


ONE_BODY = [
    (*ring, *steps, 1)
    for ring in ((1, 14, 2), (2, 23, 1), (4, 10, 2))
    for steps in ((1, 1, 1), (4, 1, 1), (2, 2, 1), (6, 2, 1), (2, 1, 2), (3, 1, 3), (9, 1, 3), (8, 1, 4))
]
SHARED = [(*ring, *steps, 2) for ring in ((4, 23, 1), (2, 10, 2)) for steps in ((3, 1, 3), (6, 1, 3), (2, 2, 1))]


@pytest.mark.parametrize(("k", "base_log", "levels", "n", "grouping_factor", "block_length", "w"), ONE_BODY + SHARED)
def test_blind_rotate_is_the_exact_one_within_the_transforms_rounding(
    k: int, base_log: int, levels: int, n: int, grouping_factor: int, block_length: int, w: int
) -> None:
    """After one step every word of the first body is within 2^-24 of the torus of the exact one. After more, and after a split, a digit may
    round to the other side and the masks with it, so the phases are compared: 2^-14, the size of what the digits leave out. Each value has
    a table of its own, the last row one value less. A second place of the table is what bodies give that are higher by it."""
    size, rows_of, entries = 128, 11, n if grouping_factor == 1 else n // 2 * 3
    count = rows_of * w - (w - 1)
    bits = RNG.integers(0, 2, (entries, w)).astype(np.int8)
    glwe_keys = RNG.integers(0, 2, (w, k, size)).astype(np.int8)
    seed, shape, rows = os.urandom(32), {"base_log": base_log, "levels": levels}, (k + w) * levels
    bodies = _kernel.bootstrapping_key_bodies(
        bits, glwe_keys, **shape, std_dev=2.0**-45, mask_seed=seed, noise_seed=os.urandom(32), body_bits=64, threads=1
    )
    masks: dict[str, Any] = {"mask_seed": seed, "rows": rows, "glwe_dimension": k, "polynomial_size": size}
    bsk = np.stack(
        [np.concatenate([_kernel.ring_key_masks(index=i, **masks), bodies[i]], axis=1) for i in range(entries)]
    )
    split, split_rows = ring_switch_key(glwe_keys[-1][:, None, None], glwe_keys[:1], **shape)
    fourier = _kernel.expand_ring_key(bodies, first_entry=0, mask_seed=seed, glwe_dimension=k, **shape, threads=1)
    tables = RNG.integers(-(2**62), 2**62, (2, size)) // 2**20 * 2**20
    switched = RNG.integers(0, 2 * size, (rows_of, n + w)).astype(np.int32)
    switched[0] = 0
    index = RNG.integers(0, 2, count).astype(np.int32)
    shape |= {"grouping_factor": grouping_factor, "block_length": block_length}
    second = RNG.permutation(2 * size)[:2].astype(np.int32).clip(1)
    options: dict[str, Any] = shape | {"bodies": w, "threads": 2, "split_key": split if w > 1 else None}
    got = _kernel.blind_rotate(switched, tables / 2.0**64, index, fourier, **options, second=second)
    assert np.array_equal(got[:count], _kernel.blind_rotate(switched, tables / 2.0**64, index, fourier, **options))
    gadget, key = (base_log, levels), glwe_keys[0].reshape(-1).astype(np.uint32)
    for value, place in [*((value, 0) for value in range(count)), *((value, 1) for value in range(4))]:
        row, body = divmod(value, w)
        moved, of_row = switched[row].copy(), np.minimum(np.arange(row * w, row * w + w), count - 1)
        moved[n:] += place * second[index[value]]
        ring = reference.blind_rotate(
            moved % (2 * size), tables.astype(np.uint64)[index[of_row]], bsk, **shape, bodies=w
        )
        alone = np.concatenate([ring[:k], ring[None, k + body]])
        if body:
            alone = reference.ring_switch(ring[:k, None], split_rows, *gadget)
            alone[k] += ring[k + body]
        error = got[place * count + value] - (reference.extract(alone) >> np.uint64(32)).astype(np.uint32)
        assert np.abs((error[-1:] - key @ error[:-1]).astype(np.int32)) < 2**18
        assert body or n > grouping_factor * block_length or np.abs(error.astype(np.int32)).max() < 2**8


@pytest.mark.parametrize("threads", [1, 3])
def test_a_ciphertext_is_switched_alike_alone_and_among_many(threads: int) -> None:
    x, key = words(530, 72), words(2, 71 * 3, 32)
    many, alone = (
        _kernel.key_switch(rows, key, output_dimension=60, base_log=4, levels=3, binary_key=True, threads=threads)
        for rows in (x, x[517:518])
    )
    assert np.array_equal(many[517:518], alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: _kernel.key_switch(
                words(2, 5), words(1, 9, 32), output_dimension=2, base_log=2, levels=2, binary_key=True, threads=1
            ),
            "9 rows, need 8",
        ),
        (
            lambda: _kernel.key_switch(
                words(2, 5), words(1, 8, 32), output_dimension=2, base_log=8, levels=4, binary_key=True, threads=1
            ),
            "must fit 31 bits",
        ),
        (
            lambda: _kernel.key_switch(
                words(2, 5), words(1, 8, 32), output_dimension=2, base_log=7, levels=2, binary_key=True, threads=1
            ),
            "at most 6 bits, not 7",
        ),
        (
            lambda: _kernel.key_switch(
                words(2, 6),
                words(1, 8, 32),
                output_dimension=31,
                base_log=2,
                levels=2,
                binary_key=True,
                bodies=2,
                threads=1,
            ),
            "wrong number of columns",
        ),
        (
            lambda: _kernel.expand_key_switch_key(
                words(80, 0), mask_seed=bytes(32), first_row=0, output_dimension=0, threads=1
            ),
            "a mask and a body at least",
        ),
        (lambda: _kernel.modulus_switch(words(2, 5), polynomial_size=100), "power of two"),
        (lambda: _kernel.modulus_switch(words(2, 5), polynomial_size=128, bodies=5), "a mask and its bodies"),
        (lambda: _kernel.modulus_switch(words(2, 5), polynomial_size=128, block_length=0), "block_length 0"),
        (
            lambda: rotate_words(n=6, entries=6, grouping_factor=1, block_length=5),
            "block_length must be in 1..4, not 5",
        ),
        (lambda: rotate_words(n=6, entries=6, grouping_factor=2, block_length=3), "not pairs of blocks"),
        (lambda: rotate_words(n=6, entries=8, grouping_factor=1, block_length=3), "8 entries, a step needs 3"),
        (lambda: rotate_words(n=7, entries=6, grouping_factor=1, block_length=3), "8 words, parameters need 7"),
        (
            lambda: rotate_words(n=6, entries=6, grouping_factor=1, split_key=np.zeros((1, 64, 2, 1, 2))),
            "split key has the wrong shape",
        ),
        (
            lambda: _kernel.blind_rotate(
                np.zeros((1, 8), np.int32),
                np.zeros((1, 128)),
                np.zeros(2, np.int32),
                np.zeros((6, 64, 6, 6, 2)),
                base_log=23,
                levels=1,
                grouping_factor=1,
                bodies=2,
                threads=1,
            ),
            "rows of 2 bodies need a split key",
        ),
        (
            lambda: _kernel.merge(words(2, 5), np.zeros((1, 64, 4, 2, 2)), bodies=2, base_log=23, levels=1, threads=1),
            "5 words, the key is for 129",
        ),
        (
            lambda: rotate_words(n=6, entries=6, grouping_factor=1, second=np.array([1, 2], np.int32)),
            "one second coefficient per table",
        ),
        (
            lambda: rotate_words(n=6, entries=6, grouping_factor=1, second=np.array([256], np.int32)),
            "second coefficient 0 is not in",
        ),
        (lambda: _kernel.block_binary(bytes(32), 2, 0), "at least one bit"),
        (lambda: _kernel.uniform_binary(b"short", 8, 0), "5 bytes, need 32"),
        (
            lambda: _kernel.linear(
                words(2, 5),
                np.array([0, 1]),
                np.array([2], np.int32),
                np.array([0], np.int8),
                np.array([1], np.int8),
                threads=1,
            ),
            "out of range",
        ),
    ],
)
def test_wrong_sizes_are_refused_by_name(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_other_types_and_strides_are_refused() -> None:
    with pytest.raises(TypeError):
        _kernel.modulus_switch(words(4, 6)[:, ::2], polynomial_size=128)
    with pytest.raises(TypeError):
        _kernel.modulus_switch(words(4, 6).astype(np.int64), polynomial_size=128)
