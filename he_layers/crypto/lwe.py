"""LWE ciphertexts on the server: extraction from CKKS, shift-linear maps, key switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.native import _kernel

TORUS = 2.0**32


def to_words(values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Rounds torus values to words, modulo 1."""
    return np.rint(np.asarray(values) * TORUS).astype(np.int64).astype(np.uint32)


def sample_extract(ciphertext: CkksCiphertext) -> LweCiphertextList:
    """Reads every message coefficient as an LWE ciphertext under the CKKS secret's coefficients.

    Coefficient i has the mask -(c1_i, ..., c1_0, -c1_{N-1}, ..., -c1_{i+1}) and the body c0_i (CGGI, eprint 2018/421, section 4.2).

    Returns:
        [messages, ring_degree + 1].

    Noise: that of the ciphertext; 2**-33 for rounding to words, times the secret's norm.
    """
    params = ciphertext.params
    n = params.input_ring.ring_degree
    rows = np.empty((len(ciphertext.c0), n + 1), dtype=np.uint32)
    for start, c1 in zip(range(0, len(rows), n), ciphertext.c1, strict=True):
        mask = to_words(c1 / params.input_ring.modulus)
        wrapped = np.concatenate(
            [mask[::-1], np.uint32(0) - mask[::-1]]
        )  # window n - 1 - i reads c1_i ... c1_0, -c1_{n-1} ...
        windows = np.lib.stride_tricks.sliding_window_view(wrapped, n)[n - 1 :: -1]
        part = rows[start : start + n, :n]
        np.subtract(np.uint32(0), windows[: len(part)], out=part)
    rows[:, n] = ciphertext.c0.astype(np.uint32) << np.uint32(32 - params.input_body_bits)
    return LweCiphertextList(rows, input_words=n)


@dataclass(frozen=True, slots=True)
class ShiftMatrix:
    """A sparse matrix of weights +-2**exponent, row by row, by falling exponent within a row (products become shifts), plus first."""

    columns: int
    indptr: NDArray[np.int64]  # [rows + 1]
    indices: NDArray[np.int32]  # [entries]
    exponents: NDArray[np.int8]  # [entries], 0..31
    signs: NDArray[np.int8]  # [entries], +1 or -1

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return len(self.indptr) - 1

    @classmethod
    def from_entries(
        cls,
        rows: int,
        columns: int,
        row: NDArray[np.integer],
        column: NDArray[np.integer],
        weight: NDArray[np.integer],
    ) -> Self:
        """Builds the matrix from its entries, in any order; zero weights are dropped.

        Raises:
            BadShapeError: a weight is not 0 or +-2**e, or an index lies outside.
        """
        used = np.flatnonzero(weight)
        row, column, weight = row[used], column[used], weight[used].astype(np.int64)
        exponents = np.rint(np.log2(np.abs(weight))).astype(np.int8)
        if np.any(np.abs(weight) != 1 << exponents.astype(np.int64)):
            raise BadShapeError("a shift matrix takes weights of 0 and +-2**e only")
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        if not inside.all():
            raise BadShapeError(f"an entry lies outside the {rows} x {columns} matrix")
        order = np.lexsort((weight < 0, -exponents, row))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
        return cls(
            columns=columns,
            indptr=indptr,
            indices=column[order].astype(np.int32),
            exponents=exponents[order],
            signs=np.sign(weight[order]).astype(np.int8),
        )


def linear(x: LweCiphertextList, matrix: ShiftMatrix, *, threads: int = 1) -> LweCiphertextList:
    """Applies a shift matrix to the list: out_o = sum_i w_oi x_i.

    Returns:
        [matrix.rows, dimension + bodies].

    Raises:
        BadShapeError: the list has another length than the matrix has columns.

    Noise: variance of output o is sum_i w_oi**2 times that of x.
    """
    if len(x) != matrix.columns:
        raise BadShapeError(f"the list has {len(x)} ciphertexts, the matrix takes {matrix.columns}")
    data = _kernel.linear(x.data, matrix.indptr, matrix.indices, matrix.exponents, matrix.signs, threads=threads)
    return replace(x, data=data)


def add_constant(x: LweCiphertextList, words: NDArray[np.uint32]) -> LweCiphertextList:
    """Adds a public torus word to the bodies of each row; no noise."""
    data = x.data.copy()
    data[:, x.dimension :] += words[:, None]
    return replace(x, data=data)


def joined(lists: Sequence[LweCiphertextList]) -> LweCiphertextList:
    """All rows of lists under one key, one list after the other; a single list is not copied."""
    if len(lists) == 1:
        return lists[0]
    return replace(lists[0], data=np.concatenate([x.data for x in lists]))


def in_turn(lists: Sequence[LweCiphertextList]) -> LweCiphertextList:
    """The first rows of all lists, which are of equal length and under one key, then their second rows, and so on."""
    if len(lists) == 1:
        return lists[0]
    return replace(lists[0], data=np.stack([x.data for x in lists], axis=1).reshape(-1, lists[0].data.shape[1]))


def every(x: LweCiphertextList, first: int, step: int) -> LweCiphertextList:
    """The rows of one of the lists that ``in_turn`` took: from ``first`` on, every ``step``-th."""
    return replace(x, data=np.ascontiguousarray(x.data[first::step]))


def side_by_side(lists: Sequence[LweCiphertextList]) -> LweCiphertextList:
    """Joins lists of equal length under the CKKS secret, row by row: the masks of all, then their bodies.

    Returns:
        [count, ring_degree * lists + lists], a body for each list; a single list is not copied.
    """
    if len(lists) == 1:
        return lists[0]
    masks, bodies = [x.data[:, :-1] for x in lists], [x.data[:, -1:] for x in lists]
    return LweCiphertextList(
        np.concatenate([*masks, *bodies], axis=1), input_words=sum(x.input_words for x in lists), bodies=len(lists)
    )


def key_switch(x: LweCiphertextList, keys: ServerKeys, *, threads: int = 1) -> LweCiphertextList:
    """Brings ciphertexts to the small key, from the CKKS secret, from the big key, or from both one after the other.

    Values of one row come to share a mask: from the big keys, whose mask they share already, in one key switch; from the CKKS secret in one
    for each body, which leaves the other bodies' values as they are.

    Returns:
        [count, lwe_dimension + bodies].

    Raises:
        BadShapeError: the ciphertexts are under none of these keys.

    Noise: noise.input_key_switch_variance, noise.key_switch_variance, or the sum of the two.
    """
    params = keys.params
    to_one_body = params.input_ring.ring_degree
    big_words = x.dimension - x.input_words
    if (
        x.bodies > params.bodies
        or x.input_words not in (0, x.bodies * to_one_body)
        or big_words not in (0, params.big_dimension)
        or not x.dimension
    ):
        raise BadShapeError(
            f"ciphertexts of {x.bodies} bodies, with {x.input_words} and {big_words} words under the input and the big key, "
            f"are under no key of {params.name}"
        )

    def switch(data: NDArray[np.uint32], key: NDArray[np.uint32], binary_key: bool) -> NDArray[np.uint32]:
        gadget = params.key_switch
        return _kernel.key_switch(
            data,
            key,
            output_dimension=params.lwe_dimension,
            base_log=gadget.base_log,
            levels=gadget.levels,
            binary_key=binary_key,
            bodies=x.bodies,
            key_bodies=params.bodies,
            threads=threads,
        )

    starts = range(0, x.input_words, to_one_body)
    parts = [(start, start + to_one_body, key) for start, key in zip(starts, keys.input_ksk, strict=False)]
    parts += [(x.input_words, x.dimension, keys.ksk)] if big_words else []
    if len(parts) == 1:
        return LweCiphertextList(switch(x.data, parts[0][2], bool(big_words)), bodies=x.bodies)
    total = np.zeros((len(x), params.lwe_dimension + x.bodies), dtype=np.uint32)
    total[:, params.lwe_dimension :] = x.data[:, x.dimension :]
    for start, stop, key in parts:
        mask = np.zeros((len(x), stop - start + x.bodies), dtype=np.uint32)
        mask[:, : stop - start] = x.data[:, start:stop]
        total += switch(mask, key, key is keys.ksk)
    return LweCiphertextList(total, bodies=x.bodies)
