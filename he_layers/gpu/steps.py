"""What one step of a blind rotation takes, whatever the way in which a parameter set groups the small key's bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.gpu.fourier import Fourier


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """Of all steps of one parameter set.

    Attributes:
        bits: of the small key, and exponents.
        keys: GGSW ciphertexts.
        products: whether there are three keys for two bits s and t, those of s (1 - t), (1 - s) t and s t; else there is one for each bit.
        steps: of a bootstrap.
        rows: of a GGSW ciphertext.
        polynomials: of a GLWE ciphertext.
    """

    bits: int
    keys: int
    products: bool
    steps: int
    rows: int
    polynomials: int

    @classmethod
    def of(cls, params: ParameterSet) -> Self:
        """The shape under a parameter set."""
        return cls(
            bits=params.bits_per_step,
            keys=params.ggsws_per_step,
            products=params.ggsws_per_step > params.bits_per_step,
            steps=params.steps,
            rows=(params.glwe_dimension + 1) * params.pbs.levels,
            polynomials=params.glwe_dimension + 1,
        )

    def factors(self, exponents: Tensor, fourier: Fourier) -> Tensor:
        """X^a - 1 for each key, at every point: int32 [count, bits] -> complex128 [count, keys, M]."""
        powers = fourier.monomials(exponents)
        if self.products:
            powers = torch.cat([powers, powers[:, :1] * powers[:, 1:]], dim=1)
        return powers - 1
