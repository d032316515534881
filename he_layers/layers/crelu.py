"""relu(x) and relu(-x) by one look-up for each value (concatenated ReLU: Shang et al., ICML 2016, arXiv 1603.05201).

A blind rotation turns the whole table: the coefficient s of its accumulator holds f(phase + s / 2N). Let f be the ramp of r turns that
begins at phase 0. Then relu(-x) = top - f(x + r), and f(phase + 1/2) = -f(phase) turns the sign: it is read at s = N + 2N r.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from ciphershift.he_layers.layers.layer import Circuit, FloatArray, IntArray, Scale, Shape, T, flat_size
from ciphershift.he_layers.layers.table import Table


@dataclass(frozen=True, kw_only=True, eq=False)
class CReLU(Table):
    """Of channel c: q = clip(floor(y + 1/2), 0, levels) in channel 2c and clip(-floor(y + 1/2), 0, levels) in channel 2c + 1.

    y = (x + bias) * multiplier, with bias and multiplier of the channel. Both are right on [-1/2 + r, 1/2 - r) for ramps of r turns.

    Attributes:
        multiplier: float64 [C] > 0, output units for one input unit.
        levels: greatest output integer.
    """

    kind: ClassVar[str] = "crelu"
    results: ClassVar[int] = 2
    longest_ramp: ClassVar[float] = 0.25  # both ramps lie within the window
    multiplier: FloatArray
    levels: int

    def __post_init__(self) -> None:
        """Checks the channels and ranges. Raises ProgramError or OutOfLevelsError."""
        self.check_bias()
        self.check_multiplier(self.multiplier)
        self.check_levels(self.levels)
        self.check_span()

    @property
    def start(self) -> FloatArray:
        """Of the rising ramp: zero."""
        return np.zeros(len(self.bias))

    @property
    def length(self) -> FloatArray:
        """Of each ramp."""
        return self.levels / self.multiplier

    @property
    def window(self) -> tuple[FloatArray, FloatArray]:
        """One ramp to each side of zero."""
        return self.start, self.length

    @property
    def ends(self) -> tuple[IntArray, IntArray]:
        """Of the rising ramp: zero and the greatest level."""
        return np.zeros(len(self.bias), dtype=np.int64), np.full(len(self.bias), self.levels)

    @property
    def span(self) -> int:
        """The greatest level."""
        return self.levels

    def levels_of(self, x: FloatArray) -> FloatArray:
        """Output integers of the rising ramp for [C, ...] sums that have their bias already."""
        return np.clip(self._steps(x), 0, self.levels)

    def _steps(self, x: FloatArray) -> FloatArray:
        return np.floor(x * self.multiplier.reshape(-1, *[1] * (x.ndim - 1)) + 0.5)

    def output_shape(self, shape: Shape) -> Shape:
        """Twice the channels. Raises BadShapeError unless the first axis has as many as the bias."""
        channels, *places = super().output_shape(shape)
        return 2 * channels, *places

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, C, ...] -> [batch, 2C, ...]."""
        biased = x + self.bias.reshape(-1, *[1] * (x.ndim - 2))
        steps = np.moveaxis(self._steps(np.moveaxis(biased, 1, 0).astype(np.float64)), 0, 1)
        both = np.stack([steps, -steps], axis=2)
        return np.clip(both, 0, self.levels).astype(np.int64).reshape(len(x), *self.output_shape(x.shape[1:]))

    def part(self, start: int, stop: int) -> Self:
        """The tables of these channels of the input."""
        return replace(self, bias=self.bias[start:stop], multiplier=self.multiplier[start:stop])

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Bias on the bodies, one table for each channel, read at two places; half of the top on the bodies.

        Noise: the same noise of the look-up's input (key switch and modulus switch) moves a value along both ramps; each result has the
        output noise of a bootstrap, with a correlation of -0.3 (short ramps) to 0 (ramps of a quarter turn), which simulation leaves out.
        The second place is rounded to the grid of 2N points, as all tables are.
        """
        size, per_channel = scale.polynomial_size, flat_size(scale.shape[1:])
        middle = np.full(2 * flat_size(scale.shape), self.levels / 2 * self.delta_out)
        tables = (
            self.levels_of(np.tile(scale.table_points(whole=False), (len(self.bias), 1))) * self.delta_out - middle[0]
        )
        second = size + np.maximum(1, np.rint(self.length * scale.delta * 2 * size)).astype(np.int32)
        table_index = np.repeat(np.arange(len(self.bias), dtype=np.int32), per_channel)
        biased = circuit.add_constant(x, np.repeat(self.bias * scale.delta, per_channel))
        found = circuit.lookup(biased, tables, table_index, second)
        order = np.arange(2 * flat_size(scale.shape)).reshape(2, -1, per_channel).swapaxes(0, 1).reshape(-1)
        return circuit.add_constant(circuit.select(found, order), middle)
