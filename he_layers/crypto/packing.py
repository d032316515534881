"""Packing: the logits, LWE ciphertexts under the big key, into one CKKS ciphertext of the answer ring."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.crypto.ciphertexts import Binding, LweCiphertextList, PackedAnswer
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


def packing_key_switch(
    x: LweCiphertextList, keys: AnswerKeys, binding: Binding, *, body: int = 0, threads: int = 1
) -> PackedAnswer:
    """Packs up to N ciphertexts, adds a fresh public encryption of zero and flooding noise, and rounds to the wire's precision.

    Chen, Dai, Kim, Song, eprint 2020/015, Algorithms 1 and 2. Every coefficient without a message is left out of the answer.

    Args:
        x: under the big keys.
        keys: expanded evaluation keys.
        binding: what the answer belongs to.
        body: which of the values of a row are packed.
        threads: of the kernel.

    Raises:
        BadShapeError: the ciphertexts are not under the big key, or too many for one ring.

    Noise: noise.packing_variance.
    """
    params, ring = keys.params, keys.params.answer_ring
    if x.input_words or x.dimension != params.big_dimension or not 1 <= len(x) <= ring.ring_degree:
        raise BadShapeError(f"{len(x)} ciphertexts of dimension {x.dimension} cannot be packed under {params.name}")
    c0, c1 = _kernel.packing_key_switch(
        x.body(body),
        keys.answer_key,
        modulus=ring.modulus,
        base_log=params.answer.base_log,
        levels=params.answer.levels,
        error_std_dev=SEAL_STD_DEV,
        flooding_std_dev=2.0**params.flooding_log2_std_dev * ring.modulus,
        seed=os.urandom(32),
        body=body,
        threads=threads,
    )
    step = ring.ring_degree >> (len(x) - 1).bit_length()
    bits = params.answer_bits
    rounded = [
        np.rint(part * (2.0**bits / ring.modulus)).astype(np.uint64) & np.uint64(2**bits - 1)
        for part in (c0[: len(x) * step : step], c1)
    ]
    return PackedAnswer(params=params, binding=binding, c0=rounded[0], c1=rounded[1])
