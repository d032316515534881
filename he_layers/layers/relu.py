"""Clipped ReLU with batch-norm, bias and re-quantization in one table for each channel: one look-up for each value."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from ciphershift.errors import OutOfLevelsError
from ciphershift.he_layers.layers.layer import (
    LATER,
    FloatArray,
    IntArray,
    anti_periodic,
    check_modulus,
    check_one_turn,
)
from ciphershift.he_layers.layers.table import Table

MAX_RAMP = 0.3
"""Greatest length of a ramp in turns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReLU(Table):
    """q = clip(floor((x + bias) * multiplier + 1/2), lowest, levels), with bias and multiplier of the value's channel.

    With a ``modulus`` m (exact profile) that holds for residues of x + bias on 0 .. m/2 - 1, and q(x + m/2) = levels - q(x) beyond: what
    the torus does to a sum that leaves its window is part of the integer semantics.

    Attributes:
        multiplier: float64 [C] > 0, output units for one input unit.
        levels: greatest output integer.
        lowest: least output integer: 0, or below it for a ramp that begins below zero (hardtanh).
        modulus: of the sums in the exact profile, an even number; none in the fast one.
    """

    kind: ClassVar[str] = "relu"
    longest_ramp: ClassVar[float] = MAX_RAMP
    multiplier: FloatArray
    levels: int
    lowest: int = field(default=0, metadata=LATER)
    modulus: int | None = None

    def __post_init__(self) -> None:
        """Checks the channels and ranges. Raises ProgramError or OutOfLevelsError."""
        self.check_bias()
        self.check_multiplier(self.multiplier)
        self.check_levels(self.levels)
        if not -255 <= self.lowest <= 0 or (self.lowest and self.modulus is not None):
            raise OutOfLevelsError(
                f"layer {self.name!r} has lowest = {self.lowest}; it takes -255 to 0, and 0 together with a modulus"
            )
        check_modulus(self, self.modulus)
        self.check_span()

    @property
    def start(self) -> FloatArray:
        """The first level's place: 0, or below it."""
        return self.lowest / self.multiplier

    @property
    def length(self) -> FloatArray:
        """From the least level to the greatest."""
        return self.span / self.multiplier

    @property
    def ends(self) -> tuple[IntArray, IntArray]:
        """The least and the greatest level."""
        return np.full(len(self.bias), self.lowest), np.full(len(self.bias), self.levels)

    @property
    def span(self) -> int:
        """Steps of the ramp."""
        return self.levels - self.lowest

    def output_delta(self, delta: float) -> float:
        """See Table. Raises ProgramError if the modulus is not one turn for ``delta``, too."""
        check_one_turn(self, self.modulus, delta)
        return super().output_delta(delta)

    def levels_of(self, x: FloatArray) -> FloatArray:
        """Output integers of [C, ...] sums that have their bias already."""
        multiplier = self.multiplier.reshape(-1, *[1] * (x.ndim - 1))

        def ramp(sums: FloatArray) -> FloatArray:
            return np.clip(np.floor(sums * multiplier + 0.5), self.lowest, self.levels)

        return ramp(x) if self.modulus is None else anti_periodic(ramp, x, self.modulus, top=self.levels)

    def part(self, start: int, stop: int) -> Self:
        """The tables of these channels."""
        return replace(self, bias=self.bias[start:stop], multiplier=self.multiplier[start:stop])
