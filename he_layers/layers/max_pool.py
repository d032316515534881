"""Max-pool as trees of max(a, b) = b + ReLU(a - b), one look-up for each pair: first along the rows, then down the columns.

Where windows overlap, what a row gives is computed once for all windows that read it. Put it before relu: the maximum and a rising
function commute, and relu is then evaluated on the pooled values only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import ProgramError
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
    check_window,
    flat_size,
    window_size,
)

RAMP = 0.25
"""Turns at which ReLU(a - b) saturates: it is exact while two values of a window differ by less than a quarter of the torus."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(Layer):
    """Greatest value of each window of each channel.

    With a ``modulus`` m (exact profile) values are residues modulo m, and the integer semantics is that of the tree: b + ReLU(a - b) for
    differences from 0 to m/4, clipped there and continued as the torus does, so that it is the maximum while a window spreads over less.

    Attributes:
        kernel: height and width of a window.
        stride: steps between windows.
        padding: places beyond the border, which hold nothing.
        modulus: of the values in the exact profile, an even number; none in the fast one.
    """

    kind: ClassVar[str] = "max_pool"
    channelwise: ClassVar[bool] = True
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = field(default=(0, 0), metadata=LATER)
    modulus: int | None = None

    def __post_init__(self) -> None:
        """Checks the window. Raises ProgramError."""
        check_window(self, {"kernel": self.kernel, "stride": self.stride}, least=1)
        check_window(self, {"padding": self.padding}, least=0)
        if any(2 * padding > kernel for padding, kernel in zip(self.padding, self.kernel, strict=True)):
            raise ProgramError(
                f"layer {self.name!r} has padding {self.padding}; at most half its kernel {self.kernel}, so that every window has a value"
            )
        check_modulus(self, self.modulus)

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W'); what does not fill a window is left out."""
        return shape[0], *window_size(self, shape, self.kernel, self.stride, self.padding)

    def output_delta(self, delta: float) -> float:
        """The input's. Raises ProgramError if the modulus is not one turn for it."""
        check_one_turn(self, self.modulus, delta)
        return delta

    def lookups(self, shape: Shape) -> int:
        """One less than the window's width for each maximum along a row that is read, one less than its height for each result."""
        channels, high, wide = self.output_shape(shape)
        kernel, stride, padding = self.kernel[0], self.stride[0], self.padding[0]
        last = (high - 1) * stride - padding  # where the last window begins; the first reads row 0
        rows = min(last + kernel, shape[1])
        if stride > kernel and high > 1:
            rows = kernel - padding + (high - 2) * kernel + rows - last
        return channels * wide * (rows * (self.kernel[1] - 1) + high * (kernel - 1))

    def _steps(self, shape: Shape) -> tuple[list[IntArray], list[IntArray]]:
        """Of both steps, for each place in a row or a column of the window: flat index of the value there, for every result of the step.

        The first step's results are [C, rows that a window reads, W']. A place beyond the border stands for the nearest value on it, which
        the same window holds: the maximum is that of the window without its padding.
        """
        places = np.arange(flat_size(shape)).reshape(shape)
        rows, columns = (self._along(axis, shape) for axis in (0, 1))
        read = np.unique(rows)
        along = [places[:, read][:, :, column].reshape(-1) for column in columns]
        between = np.arange(len(along[0])).reshape(shape[0], len(read), -1)
        return along, [between[:, np.searchsorted(read, row)].reshape(-1) for row in rows]

    def _along(self, axis: int, shape: Shape) -> IntArray:
        """For each place in the window along one axis, 0 or 1: where every window reads, [kernel, windows]."""
        starts = np.arange(self.output_shape(shape)[axis + 1]) * self.stride[axis] - self.padding[axis]
        places: IntArray = np.clip(starts + np.arange(self.kernel[axis])[:, None], 0, shape[axis + 1] - 1)
        return places

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, C, H, W] -> [batch, C, H', W']."""
        maximum: Callable[[IntArray, IntArray], IntArray]
        maximum = np.maximum if self.modulus is None else self._modular_maximum
        values = x.reshape(len(x), -1)
        for step in self._steps(x.shape[1:]):
            values = _tree([values[:, index] for index in step], maximum)
        return values.reshape(len(x), *self.output_shape(x.shape[1:]))

    def _modular_maximum(self, a: IntArray, b: IntArray) -> IntArray:
        assert self.modulus is not None, "only the exact profile has residues"
        top = self.modulus // 4
        rise = anti_periodic(lambda d: np.minimum(d, top), (a - b).astype(np.float64), self.modulus, top=top)
        half = self.modulus // 2
        return (b + rise.astype(np.int64) + half) % self.modulus - half

    def part(self, start: int, stop: int) -> Self:
        """The layer itself: it treats every channel alike."""
        return self

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Neighbors are paired; a value left over goes to the next round.

        Noise: each round adds the noise of its look-up's input (key switch and modulus switch) to about half of the values.
        """
        whole = self.modulus is not None
        top = float(self.modulus // 4) if self.modulus is not None else RAMP / scale.delta
        points = scale.table_points(whole=whole)
        table = (np.minimum(points, top) - top / 2)[None] * scale.delta
        for step in self._steps(scale.shape):
            offset = np.full(len(step[0]), top / 2 * scale.delta)
            table_index = np.zeros(len(step[0]), dtype=np.int32)

            def maximum(a: T, b: T, offset: FloatArray = offset, table_index: NDArray[np.int32] = table_index) -> T:
                rise = circuit.lookup(circuit.subtract(a, b), table, table_index)
                return circuit.add(b, circuit.add_constant(rise, offset))

            x = _tree([circuit.select(x, index) for index in step], maximum)
        return x


def _tree(values: list[T], maximum: Callable[[T, T], T]) -> T:
    """Pairs neighbors until one value is left; a value without a neighbor goes to the next round."""
    while len(values) > 1:
        left_over = values[len(values) // 2 * 2 :]
        values = [maximum(a, b) for a, b in zip(values[0::2], values[1::2], strict=False)] + left_over
    return values[0]
