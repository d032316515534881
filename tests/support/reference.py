"""The kernel's functions again, in a few lines of NumPy each: slow, exact, and what the kernel is held against."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]


def chacha20(key: bytes, counter: int, nonce: U32, blocks: int) -> U32:
    """RFC 8439, section 2.3."""

    def quarter(x: U32, a: int, b: int, c: int, d: int) -> None:
        for to, by, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[to] += x[by]
            x[turned] ^= x[to]
            x[turned] = x[turned] << np.uint32(bits) | x[turned] >> np.uint32(32 - bits)

    constants = np.frombuffer(b"expand 32-byte k", dtype="<u4")
    start = np.empty((16, blocks), dtype=np.uint32)
    start[:] = np.concatenate([constants, np.frombuffer(key, dtype="<u4"), [0], nonce])[:, None]
    start[12] = counter + np.arange(blocks)
    x = start.copy()
    for _ in range(10):
        for i in range(4):
            quarter(x, i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return (x + start).T.reshape(-1)


def negacyclic(a: NDArray[np.object_], b: NDArray[np.object_]) -> NDArray[np.object_]:
    """a * b modulo X^N + 1 over the integers."""
    n = len(a)
    full = np.convolve(a.astype(object), b.astype(object))
    full = np.concatenate([full, [0] * (2 * n - len(full))])
    return full[:n] - full[n:]


def ntt(x: U64, modulus: int) -> list[int]:
    """Evaluations at the odd powers of the smallest primitive 2N-th root, in bit-reversed order."""
    n = len(x)
    candidates = (pow(g, (modulus - 1) // (2 * n), modulus) for g in range(2, 100))
    root = next(r for r in candidates if pow(r, n, modulus) == modulus - 1)
    root = min(pow(root, odd, modulus) for odd in range(1, 2 * n, 2))
    bits = n.bit_length() - 1
    reversed_index = [int(f"{m:0{bits}b}"[::-1], 2) for m in range(n)]
    return [
        sum(int(c) * pow(root, (2 * m + 1) * j, modulus) for j, c in enumerate(x)) % modulus for m in reversed_index
    ]


def digits(word: int, base_log: int, levels: int) -> tuple[list[int], int]:
    """Balanced digits of a 32-bit word, most significant first, and the signed rest that they leave out."""
    dropped, base = 32 - base_log * levels, 1 << base_log
    x = (word >> dropped) + (word >> (dropped - 1) & 1)
    rest = (word - (x << dropped) + 2**31) % 2**32 - 2**31
    out = []
    for level in reversed(range(levels)):
        d, x = x % base, x // base
        next_is_high = x % base >= base // 2 if level else bool(word & 1)
        carry = d > base // 2 or (d == base // 2 and next_is_high)
        out.append(d - base if carry else d)
        x += carry
    return out[::-1], rest


def key_switch(x: U32, key: U32, base_log: int, levels: int, binary_key: bool, bodies: int = 1) -> U32:
    """(0, b) - sum digit * key row, and half of what the digits leave out taken from each body under a binary key."""
    out = np.zeros((len(x), key.shape[1]), dtype=np.uint32)
    for c, row in enumerate(x):
        parts = [digits(int(word), base_log, levels) for word in row[:-bodies]]
        flat = np.array([d for part, _ in parts for d in part], dtype=np.int64)
        total = -(flat @ key.astype(np.int64))
        total[-bodies:] += row[-bodies:].astype(np.int64)
        total[-bodies:] -= sum(rest for _, rest in parts) >> 1 if binary_key else 0
        out[c] = (total % 2**32).astype(np.uint32)
    return out


def modulus_switch(x: U32, polynomial_size: int, block_length: int = 1, bodies: int = 1) -> NDArray[np.int64]:
    """Nearest multiples of 2^32 / 2N; what the mask's rounding error is on average under the key is taken from each body."""
    step = 2**32 // (2 * polynomial_size)
    mask = x[:, :-bodies].astype(np.int64)
    rounded = (mask + step // 2) // step
    mean = (mask - rounded * step).sum(axis=1, keepdims=True) // (block_length + 1)
    of_bodies = (x[:, -bodies:].astype(np.int64) - mean + step // 2) // step
    return np.concatenate([rounded, of_bodies], axis=1) % (2 * polynomial_size)


def rotate(poly: NDArray[np.object_], power: int) -> NDArray[np.object_]:
    """X^power * poly modulo X^N + 1."""
    n = len(poly)
    at = (np.arange(n) - power) % (2 * n)
    return np.where(at < n, poly[at % n], -poly[at % n])


def blind_rotate(
    switched: NDArray[np.int32],
    tables: U64,
    bsk: U64,
    base_log: int,
    levels: int,
    grouping_factor: int = 1,
    block_length: int = 1,
    bodies: int = 1,
) -> NDArray[np.object_]:
    """Blind rotation of one row of ciphertexts with a mask in common, exact modulo 2^64: [k + bodies, N].

    Args:
        switched: [n + bodies].
        tables: test polynomial of each body, torus words [bodies, N].
        bsk: [entries, rows, k + bodies, N], masks and bodies: for every step one entry for each way in which not all of its bits are 0.
        base_log, levels: of the gadget.
        grouping_factor: uniform bits of the key in one step.
        block_length: bits of the key in one step of which at most one is 1.
        bodies: of the row.
    """
    n, k1 = tables.shape[1], bsk.shape[2]
    acc = np.zeros((k1, n), dtype=object)
    for body in range(1, bodies + 1):
        acc[-body] = rotate(tables[-body].astype(object), -int(switched[-body]))
    bits, per_step = grouping_factor * block_length, block_length if block_length > 1 else 2**grouping_factor - 1
    for step, ggsws in enumerate(bsk.reshape(-1, per_step, *bsk.shape[1:])):
        powers = [int(power) for power in switched[step * bits : (step + 1) * bits]]
        digits = torus_digits(acc, base_log, levels)
        for ggsw, power in zip(ggsws, powers if grouping_factor == 1 else [*powers, sum(powers)], strict=True):
            for q in range(k1):
                parts = [negacyclic(digit, row[q].astype(object)) for digit, row in zip(digits, ggsw, strict=True)]
                product = np.asarray(sum(parts))
                acc[q] = (acc[q] + rotate(product, power % (2 * n)) - product) % 2**64
    return acc


def torus_digits(polynomials: NDArray[np.object_], base_log: int, levels: int) -> NDArray[np.object_]:
    """Balanced digits of the top bits of polynomials modulo 2^64, [polynomials * levels, N]."""
    out = []
    for polynomial in polynomials:
        rest = (polynomial + 2**63) % 2**64 - 2**63
        for level in range(levels):
            unit = 2 ** (64 - base_log * (level + 1))
            out.append((rest + unit // 2) // unit)
            rest = rest - out[-1] * unit
    return np.array(out, dtype=object)


def ring_switch(polynomials: NDArray[np.object_], key: U64, base_log: int, levels: int) -> NDArray[np.object_]:
    """Sum of the digits of polynomials [entries, parts, N] times the rows of a key [entries, rows, columns, N]: [columns, N]."""
    out = np.zeros(key.shape[2:], dtype=object)
    for parts, rows in zip(polynomials, key, strict=True):
        for digit, row in zip(torus_digits(parts, base_log, levels), rows, strict=True):
            out = (out + np.stack([negacyclic(digit, column.astype(object)) for column in row])) % 2**64
    return out


def extract(ring: NDArray[np.object_], bodies: int = 1) -> NDArray[np.uint64]:
    """The constant coefficients of a ring ciphertext [k + bodies, N] as a row with k * N words of mask."""
    mask = [v for p in ring[:-bodies] for v in [p[0], *(-p[:0:-1])]]
    return np.array([int(v) % 2**64 for v in [*mask, *ring[-bodies:, 0]]], dtype=np.uint64)
