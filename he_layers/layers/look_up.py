"""Any function of one number, given by its values: one look-up for each value."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import OutOfLevelsError, ProgramError
from ciphershift.he_layers.layers.layer import FloatArray, IntArray
from ciphershift.he_layers.layers.table import Table

MAX_RAMP = 0.5
"""Greatest length of a ramp in turns: then the whole window is ramp."""
MAX_STEPS = 4096
"""Of a table: more than the points of half the torus in any parameter set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LookUp(Table):
    """q = values[channel, clip(floor((x + bias) * multiplier), 0, P - 1)]: a step function, constant before and behind its steps.

    Attributes:
        multiplier: float64 [C] > 0, steps for one input unit.
        values: int16 [C, P], output integers from -255 to 255.
    """

    kind: ClassVar[str] = "look_up"
    longest_ramp: ClassVar[float] = MAX_RAMP
    multiplier: FloatArray
    values: NDArray[np.int16]

    def __post_init__(self) -> None:
        """Checks the channels and values. Raises ProgramError or OutOfLevelsError."""
        self.check_bias()
        self.check_multiplier(self.multiplier)
        steps = self.values.shape[1] if self.values.ndim == 2 else 0
        if self.values.dtype != np.int16 or len(self.values) != len(self.bias) or not 2 <= steps <= MAX_STEPS:
            raise ProgramError(
                f"layer {self.name!r} has values of type {self.values.dtype}, shape {self.values.shape}; "
                f"it takes int16 [{len(self.bias)}, 2 to {MAX_STEPS}]"
            )
        greatest = int(np.abs(self.values.astype(np.int64)).max())
        if greatest > 255:
            raise OutOfLevelsError(f"layer {self.name!r} has the value {greatest}; values lie from -255 to 255")
        self.check_span()

    @property
    def start(self) -> FloatArray:
        """Zero."""
        return np.zeros(len(self.bias))

    @property
    def length(self) -> FloatArray:
        """All steps together."""
        steps: FloatArray = self.values.shape[1] / self.multiplier
        return steps

    @property
    def ends(self) -> tuple[IntArray, IntArray]:
        """The first and the last value of each channel."""
        return self.values[:, 0].astype(np.int64), self.values[:, -1].astype(np.int64)

    @property
    def extremes(self) -> tuple[IntArray, IntArray]:
        """The least and the greatest value of each channel."""
        return self.values.min(axis=1).astype(np.int64), self.values.max(axis=1).astype(np.int64)

    @property
    def span(self) -> int:
        """Between the least and the greatest value of all channels; at least 1."""
        return max(1, int(self.values.max()) - int(self.values.min()))

    def levels_of(self, x: FloatArray) -> FloatArray:
        """Output integers of [C, ...] sums that have their bias already."""
        column = [1] * (x.ndim - 1)
        step = np.floor(x * self.multiplier.reshape(-1, *column)).astype(np.int64)
        channel = np.arange(len(self.bias)).reshape(-1, *column)
        values: NDArray[np.int16] = self.values[channel, np.clip(step, 0, self.values.shape[1] - 1)]
        return values.astype(np.float64)

    def part(self, start: int, stop: int) -> Self:
        """The tables of these channels."""
        return replace(
            self,
            bias=self.bias[start:stop],
            multiplier=self.multiplier[start:stop],
            values=self.values[start:stop],
        )
