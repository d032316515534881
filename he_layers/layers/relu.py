"""Clipped ReLU with batch-norm, bias and re-quantization in one table for each channel: one look-up for each value."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError
from ciphershift.he_layers.layers.layer import (
    LATER,
    Circuit,
    FloatArray,
    IntArray,
    Layer,
    Scale,
    Shape,
    T,
    anti_periodic,
    check_modulus,
    check_one_turn,
    flat_size,
)

MAX_RAMP = 0.3
"""Greatest length of a ramp in turns: the table is right on [-1/2 + ramp, 1/2) and comes up again below."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReLU(Layer):
    """q = clip(floor((x + bias) * multiplier + 1/2), lowest, levels), with bias and multiplier of the value's channel.

    With a ``modulus`` m (exact profile) that holds for residues of x + bias on 0 .. m/2 - 1, and q(x + m/2) = levels - q(x) beyond: what
    the torus does to a sum that leaves its window is part of the integer semantics.

    Attributes:
        bias: int32 [C] in integer units of the input.
        multiplier: float64 [C] > 0, output units for one input unit.
        levels: greatest output integer.
        lowest: least output integer: 0, or below it for a ramp that begins below zero (hardtanh).
        delta_out: turns of one output unit.
        modulus: of the sums in the exact profile, an even number; none in the fast one.
    """

    kind: ClassVar[str] = "relu"
    channelwise: ClassVar[bool] = True
    bias: NDArray[np.int32]
    multiplier: FloatArray
    levels: int
    delta_out: float
    lowest: int = field(default=0, metadata=LATER)
    modulus: int | None = None

    def __post_init__(self) -> None:
        """Checks the channels and ranges. Raises ProgramError or OutOfLevelsError."""
        if self.bias.dtype != np.int32 or self.bias.ndim != 1:
            raise ProgramError(
                f"layer {self.name!r} has a bias of type {self.bias.dtype}, shape {self.bias.shape}; it takes int32 [C]"
            )
        if self.multiplier.dtype != np.float64 or self.multiplier.shape != self.bias.shape:
            raise ProgramError(
                f"layer {self.name!r} has a multiplier of type {self.multiplier.dtype}, shape {self.multiplier.shape}; "
                f"it takes float64 [{len(self.bias)}]"
            )
        if not (np.isfinite(self.multiplier).all() and (self.multiplier > 0).all()):
            raise ProgramError(
                f"layer {self.name!r} has the multiplier {self.multiplier.min()}; fold its sign into the weights"
            )
        if not 1 <= self.levels <= 255:
            raise OutOfLevelsError(f"layer {self.name!r} has levels = {self.levels}; it takes 1 to 255")
        if not -255 <= self.lowest <= 0 or (self.lowest and self.modulus is not None):
            raise OutOfLevelsError(
                f"layer {self.name!r} has lowest = {self.lowest}; it takes -255 to 0, and 0 together with a modulus"
            )
        check_modulus(self, self.modulus)
        if not 0 < (self.levels - self.lowest) * self.delta_out < 1:
            raise ProgramError(
                f"layer {self.name!r} puts {self.levels - self.lowest} levels of {self.delta_out} turns out; together less than 1 turn"
            )

    def output_shape(self, shape: Shape) -> Shape:
        """The input's. Raises BadShapeError unless the first axis has as many channels as the bias."""
        if not shape or shape[0] != len(self.bias):
            raise BadShapeError(f"layer {self.name!r} has {len(self.bias)} channels, its input is {shape}")
        return shape

    def lookups(self, shape: Shape) -> int:
        """One for each value."""
        return flat_size(shape)

    def output_delta(self, delta: float) -> float:
        """``delta_out``. Raises ProgramError if a ramp is longer than MAX_RAMP turns, or the modulus is not one turn, for ``delta``."""
        check_one_turn(self, self.modulus, delta)
        longest = float(((self.levels - self.lowest) / self.multiplier).max() * delta)
        if longest > MAX_RAMP:
            raise ProgramError(
                f"layer {self.name!r} has a ramp of {longest:.3f} turns, at most {MAX_RAMP}; "
                "raise its multiplier or lower the input's delta"
            )
        return self.delta_out

    def _levels_of(self, x: FloatArray) -> FloatArray:
        """Output integers of [channels, ...] sums that have their bias already."""
        multiplier = self.multiplier.reshape(-1, *[1] * (x.ndim - 1))

        def ramp(sums: FloatArray) -> FloatArray:
            return np.clip(np.floor(sums * multiplier + 0.5), self.lowest, self.levels)

        return ramp(x) if self.modulus is None else anti_periodic(ramp, x, self.modulus, top=self.levels)

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, C, ...] -> [batch, C, ...]."""
        channels_first = np.moveaxis(x, 1, 0)
        biased = channels_first + self.bias.reshape(-1, *[1] * (x.ndim - 1))
        return np.moveaxis(self._levels_of(biased.astype(np.float64)), 0, 1).astype(np.int64)

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Bias on the bodies, so that the ramp begins at phase 0; one table for each channel; the ramp's middle on the bodies.

        Noise: the look-up's input noise (key switch and modulus switch) moves the value along the ramp; with a modulus it changes nothing
        while it stays under half a unit. The result has only the output noise of a bootstrap.
        """
        per_channel = flat_size(scale.shape[1:])
        middle = (self.lowest + self.levels) / 2 * self.delta_out
        start = self.lowest / self.multiplier
        points = scale.table_points(whole=self.modulus is not None) + start[:, None]
        tables = self._levels_of(points) * self.delta_out - middle
        table_index = np.repeat(np.arange(len(self.bias), dtype=np.int32), per_channel)
        biased = circuit.add_constant(x, np.repeat((self.bias - start) * scale.delta, per_channel))
        return circuit.add_constant(circuit.lookup(biased, tables, table_index), np.full(len(table_index), middle))

    def part(self, start: int, stop: int) -> Self:
        """The tables of these channels."""
        return replace(self, bias=self.bias[start:stop], multiplier=self.multiplier[start:stop])
