"""Packing: the logits, LWE ciphertexts under the big key or weighted sums of fresh ones, into one CKKS ciphertext of the answer ring."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.crypto.ciphertexts import (
    Binding,
    CkksCiphertext,
    LweCiphertextList,
    PackedAnswer,
    ProductCiphertext,
    to_modulus,
)
from ciphershift.he_layers.crypto.params import CkksRing, ParameterSet
from ciphershift.he_layers.crypto.published import SEAL_STD_DEV
from ciphershift.he_layers.native import _kernel


class AnswerKeys(Protocol):
    """Expanded evaluation keys, as far as packing needs them."""

    @property
    def params(self) -> ParameterSet:
        """Under which they are."""

    @property
    def answer_key(self) -> NDArray[np.uint64]:
        """[rows, (body, mask), answer ring degree]."""


def key_switches(count: int, ring: CkksRing) -> int:
    """How many key switches bring ``count`` logits into one answer: for each, each pair of trees, and each step of the trace."""
    depth = (count - 1).bit_length()
    return count + (1 << depth) - 1 + ring.ring_degree.bit_length() - 1 - depth


def packing_key_switch(x: LweCiphertextList, keys: AnswerKeys, binding: Binding, *, threads: int = 1) -> PackedAnswer:
    """Packs up to N ciphertexts, adds a fresh public encryption of zero and flooding noise, and rounds to the wire's precision.

    Chen, Dai, Kim, Song, eprint 2020/015, Algorithms 1 and 2. Every coefficient without a message is left out of the answer.

    Args:
        x: under the big key.
        keys: expanded evaluation keys.
        binding: what the answer belongs to.
        threads: of the kernel.

    Raises:
        BadShapeError: the ciphertexts are not under the big key, or too many for one ring.

    Noise: noise.packing_variance.
    """
    params, ring = keys.params, keys.params.answer_ring
    if x.input_words or x.bodies > 1 or x.dimension != params.big_dimension or not 1 <= len(x) <= ring.ring_degree:
        raise BadShapeError(f"{len(x)} ciphertexts of dimension {x.dimension} cannot be packed under {params.name}")
    c0, c1 = _kernel.packing_key_switch(x.data, keys.answer_key, threads=threads, **_options(params))
    return _rounded(params, binding, len(x), c0, c1)


def packing_products(
    x: CkksCiphertext,
    weight: NDArray[np.int32],
    turns: NDArray[np.float64],
    keys: AnswerKeys,
    binding: Binding,
    *,
    threads: int = 1,
) -> PackedAnswer:
    """Packs weighted sums of the messages plus constants: products of ring elements, and no look-up.

    As ``packing_key_switch`` does it; a sum is the constant coefficient of x(X) w(1 / X), with w's coefficients the weights.

    Args:
        x: a ProductCiphertext of I messages.
        weight: [O, I], 1 <= O <= N.
        turns: what is added to each sum, [O].
        keys: expanded evaluation keys of the ciphertext's owner.
        binding: what the answer belongs to.
        threads: of the kernel.

    Raises:
        BadShapeError: the ciphertext is of another kind, or of another number of messages, or the sums are too many for one ring.

    Noise: noise.fresh_product_variance times the sum of the squared weights, and noise.packing_variance of products.
    """
    params, ring = keys.params, keys.params.answer_ring
    if not isinstance(x, ProductCiphertext) or weight.shape[1] != len(x.c0) or not 1 <= len(weight) <= ring.ring_degree:
        raise BadShapeError(
            f"{len(x.c0)} values of a {type(x).__name__} cannot be multiplied by weights {weight.shape}"
        )
    residues = np.zeros((len(x.c1), 2, ring.ring_degree), dtype=np.uint64)
    bodies = np.zeros(x.c1.size, dtype=np.uint64)
    bodies[: len(x.c0)] = to_modulus(x.c0, 1 << x.body_bits(params), ring.modulus)
    residues[:, 0] = bodies.reshape(x.c1.shape)
    residues[:, 1] = to_modulus(x.c1, x.mask_values(params), ring.modulus)
    bias = np.rint((turns % 1.0) * ring.modulus).astype(np.uint64) % np.uint64(ring.modulus)
    c0, c1 = _kernel.packing_products(residues, weight, bias, keys.answer_key, threads=threads, **_options(params))
    return _rounded(params, binding, len(weight), c0, c1)


def _options(params: ParameterSet) -> dict[str, Any]:
    """What the kernel must know of ring and noise, and its randomness."""
    ring = params.answer_ring
    return {
        "modulus": ring.modulus,
        "base_log": params.answer.base_log,
        "levels": params.answer.levels,
        "error_std_dev": SEAL_STD_DEV,
        "flooding_std_dev": 2.0**params.flooding_log2_std_dev * ring.modulus,
        "seed": os.urandom(32),
    }


def _rounded(
    params: ParameterSet, binding: Binding, count: int, c0: NDArray[np.uint64], c1: NDArray[np.uint64]
) -> PackedAnswer:
    """The coefficients with a message, and the mask, in the precision of the wire."""
    ring = params.answer_ring
    step = ring.ring_degree >> (count - 1).bit_length()
    rounded = [to_modulus(part, ring.modulus, 1 << params.answer_bits) for part in (c0[: count * step : step], c1)]
    return PackedAnswer(params=params, binding=binding, c0=rounded[0], c1=rounded[1])
