"""What layers with one look-up for each value have in common: a table for each channel that is constant outside its ramp.

A ring of degree N is negacyclic: a table that is f on half of the torus is -f on the other half. Let f change only on a ramp of r turns
that begins at phase 0, with the value ``first`` before it and ``last`` behind it. The table of f - (first + last) / 2 is then right on
[-1/2 + r, 1/2), which is more than half of the torus for every r below 1/2 (docs/decisions/0150-one-table-for-every-function.md).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError
from ciphershift.he_layers.layers.layer import Circuit, FloatArray, IntArray, Layer, Scale, Shape, T, flat_size


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(Layer):
    """One look-up for each value, in the table of its channel.

    Attributes:
        bias: int32 [C] in integer units of the input.
        delta_out: turns of one output unit.
    """

    channelwise: ClassVar[bool] = True
    longest_ramp: ClassVar[float]
    bias: NDArray[np.int32]
    delta_out: float

    @property
    @abstractmethod
    def start(self) -> FloatArray:
        """Where the ramp begins, in integer units of the input with its bias, [C]."""

    @property
    @abstractmethod
    def length(self) -> FloatArray:
        """Of the ramp in integer units of the input, [C]."""

    @property
    @abstractmethod
    def ends(self) -> tuple[IntArray, IntArray]:
        """Output integers before and behind the ramp, [C] each."""

    @property
    def window(self) -> tuple[FloatArray, FloatArray]:
        """Middle m and half width h, integer units of the input with its bias, [C]: tables are right up to 1/2 turn - h away from m."""
        return self.start + self.length / 2, self.length / 2

    @property
    def extremes(self) -> tuple[IntArray, IntArray]:
        """Least and greatest output integers, [C]."""
        return self.ends

    @property
    @abstractmethod
    def span(self) -> int:
        """Greatest difference of two output integers."""

    @abstractmethod
    def levels_of(self, x: FloatArray) -> FloatArray:
        """Output integers of [C, ...] sums that have their bias already."""

    def check_bias(self) -> None:
        """Raises ProgramError unless the bias is int32 [C]."""
        if self.bias.dtype != np.int32 or self.bias.ndim != 1:
            raise ProgramError(
                f"layer {self.name!r} has a bias of type {self.bias.dtype}, shape {self.bias.shape}; it takes int32 [C]"
            )

    def check_multiplier(self, multiplier: FloatArray) -> None:
        """Raises ProgramError unless the multiplier is float64 [C], finite and positive."""
        if multiplier.dtype != np.float64 or multiplier.shape != self.bias.shape:
            raise ProgramError(
                f"layer {self.name!r} has a multiplier of type {multiplier.dtype}, shape {multiplier.shape}; "
                f"it takes float64 [{len(self.bias)}]"
            )
        if not (np.isfinite(multiplier).all() and (multiplier > 0).all()):
            raise ProgramError(
                f"layer {self.name!r} has the multiplier {multiplier.min()}; fold its sign into the weights"
            )

    def check_levels(self, levels: int) -> None:
        """Raises OutOfLevelsError unless the greatest output integer fits a byte."""
        if not 1 <= levels <= 255:
            raise OutOfLevelsError(f"layer {self.name!r} has levels = {levels}; it takes 1 to 255")

    def check_span(self) -> None:
        """Raises ProgramError unless all output levels lie within one turn."""
        if not 0 < self.span * self.delta_out < 1:
            raise ProgramError(
                f"layer {self.name!r} puts {self.span} levels of {self.delta_out} turns out; together less than 1 turn"
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
        """``delta_out``. Raises ProgramError if a ramp is longer than ``longest_ramp`` turns for ``delta``."""
        longest = float(self.length.max() * delta)
        if longest > self.longest_ramp:
            raise ProgramError(
                f"layer {self.name!r} has a ramp of {longest:.3f} turns, at most {self.longest_ramp}; "
                "raise its multiplier or lower the input's delta"
            )
        return self.delta_out

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, C, ...] -> [batch, C, ...]."""
        channels_first = np.moveaxis(x, 1, 0)
        biased = channels_first + self.bias.reshape(-1, *[1] * (x.ndim - 1))
        return np.moveaxis(self.levels_of(biased.astype(np.float64)), 0, 1).astype(np.int64)

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Bias on the bodies, so that the ramp begins at phase 0; one table for each channel; the middle of its ends on the bodies.

        Noise: the look-up's input noise (key switch and modulus switch) moves the value along the ramp; with a modulus it changes nothing
        while it stays under half a unit. The result has only the output noise of a bootstrap.
        """
        per_channel = flat_size(scale.shape[1:])
        first, last = self.ends
        middle = (first + last) / 2 * self.delta_out
        points = scale.table_points(whole=self.modulus is not None) + self.start[:, None]
        tables = self.levels_of(points) * self.delta_out - middle[:, None]
        table_index = np.repeat(np.arange(len(self.bias), dtype=np.int32), per_channel)
        biased = circuit.add_constant(x, np.repeat((self.bias - self.start) * scale.delta, per_channel))
        return circuit.add_constant(circuit.lookup(biased, tables, table_index), np.repeat(middle, per_channel))
