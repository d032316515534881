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
from ciphershift.he_layers.crypto.params import ParameterSet
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
        [matrix.rows, dimension + 1].

    Raises:
        BadShapeError: the list has another length than the matrix has columns.

    Noise: variance of output o is sum_i w_oi**2 times that of x.
    """
    if len(x) != matrix.columns:
        raise BadShapeError(f"the list has {len(x)} ciphertexts, the matrix takes {matrix.columns}")
    data = _kernel.linear(x.data, matrix.indptr, matrix.indices, matrix.exponents, matrix.signs, threads=threads)
    return replace(x, data=data)


def add_constant(x: LweCiphertextList, words: NDArray[np.uint32]) -> LweCiphertextList:
    """Adds a public torus word to the body of each row; no noise."""
    data = x.data.copy()
    data[:, x.dimension] += words
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


def merge(x: LweCiphertextList, keys: ServerKeys, *, threads: int = 1) -> LweCiphertextList:
    """Brings ciphertexts that stand side by side, of whatever origin, to one mask under the big keys: value i to body i % bodies.

    A key switch in the ring, "Sharing the Mask" (Bergerat et al., TCHES 2025/4): the mask of each value is a few polynomials, the merge key
    holds each of their keys under the key of one body and 0 under the others'. A place that is left over in the last row holds 0.

    Args:
        x: under the CKKS secret, the big key, or both one after the other.
        keys: of a set whose ciphertexts share masks.
        threads: of the kernel.

    Returns:
        [count / bodies, rounded up, k * N + bodies].

    Raises:
        BadShapeError: the ciphertexts are under none of these keys, or the set's do not share masks.

    Noise: noise.merge_variance, of each value.
    """
    params = keys.params
    big_words = _big_words(x, params)
    if params.bodies == 1 or x.bodies > 1:
        raise BadShapeError(f"ciphertexts of {x.bodies} bodies cannot come to share masks under {params.name}")
    of_input = params.input_ring.ring_degree // params.polynomial_size
    first, stop = 0 if x.input_words else of_input, params.merge_entries if big_words else of_input
    gadget = params.pbs
    merged = _kernel.merge(
        x.data,
        keys.merge_key[first:stop],
        bodies=params.bodies,
        base_log=gadget.base_log,
        levels=gadget.levels,
        threads=threads,
    )
    return LweCiphertextList(merged, bodies=params.bodies)


def _big_words(x: LweCiphertextList, params: ParameterSet) -> int:
    """How many of a mask's words are under the big key; raises if any are under a key that there is not."""
    big_words = x.dimension - x.input_words
    if (
        x.input_words not in (0, params.input_ring.ring_degree)
        or big_words not in (0, params.big_dimension)
        or not x.dimension
    ):
        raise BadShapeError(
            f"ciphertexts with {x.input_words} and {big_words} words under the input and the big key are under no key of {params.name}"
        )
    return big_words


def key_switch(x: LweCiphertextList, keys: ServerKeys, *, threads: int = 1) -> LweCiphertextList:
    """Brings ciphertexts to the small key: from the big key, from the CKKS secret, or from both one after the other.

    Where ciphertexts share masks, all that share one are switched together, and only from the big keys: see merge.

    Returns:
        [rows, lwe_dimension + bodies].

    Raises:
        BadShapeError: the ciphertexts are under none of these keys.

    Noise: noise.input_key_switch_variance, noise.key_switch_variance, or the sum of the two.
    """
    params = keys.params
    big_words = _big_words(x, params)
    if x.bodies != params.bodies or (x.input_words and not params.input_ksk_words):
        raise BadShapeError(
            f"ciphertexts of {x.bodies} bodies, with {x.input_words} words under the input key, cannot be brought to the small key of "
            f"{params.name}"
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
            threads=threads,
        )

    if not x.input_words or not big_words:
        key = keys.ksk if big_words else keys.input_ksk
        return LweCiphertextList(switch(x.data, key, bool(big_words)), bodies=x.bodies)
    mask = np.zeros((len(x), x.input_words + 1), dtype=np.uint32)
    mask[:, :-1] = x.data[:, : x.input_words]
    rest = np.ascontiguousarray(x.data[:, x.input_words :])
    return LweCiphertextList(switch(mask, keys.input_ksk, False) + switch(rest, keys.ksk, True))
