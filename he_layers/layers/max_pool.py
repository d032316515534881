"""Max-pool as a tree of max(a, b) = b + ReLU(a - b): one look-up for each pair, kernel - 1 for each result.

Put it before relu: the maximum and a rising function commute, and relu is then evaluated on the pooled values only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from ciphershift.errors import ProgramError
from ciphershift.he_layers.layers.layer import (
    LATER,
    Circuit,
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
        """One less than the window's size, for each result."""
        return flat_size(self.output_shape(shape)) * (self.kernel[0] * self.kernel[1] - 1)

    def _windows(self, shape: Shape) -> list[IntArray]:
        """For each place in the window: flat input index of every result, [C * H' * W'].

        A place beyond the border stands for the nearest value on it, which the same window holds: the maximum is that of the window
        without its padding.
        """
        places = np.arange(flat_size(shape)).reshape(shape)
        places = np.pad(places, ((0, 0), *((side, side) for side in self.padding)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(places, self.kernel, axis=(1, 2))
        windows = windows[:, :: self.stride[0], :: self.stride[1]]
        return [windows[..., i, j].reshape(-1) for i in range(self.kernel[0]) for j in range(self.kernel[1])]

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, C, H, W] -> [batch, C, H', W']."""
        values = x.reshape(len(x), -1)
        windows = [values[:, index] for index in self._windows(x.shape[1:])]
        best: IntArray = np.max(windows, axis=0) if self.modulus is None else _tree(windows, self._modular_maximum)
        return best.reshape(len(x), *self.output_shape(x.shape[1:]))

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
        """Neighbors in row-major order are paired; a value left over goes to the next round.

        Noise: each round adds the noise of its look-up's input (key switch and modulus switch) to about half of the values.
        """
        whole = self.modulus is not None
        top = float(self.modulus // 4) if self.modulus is not None else RAMP / scale.delta
        points = scale.table_points(whole=whole)
        table = (np.minimum(points, top) - top / 2)[None] * scale.delta
        values = [circuit.select(x, index) for index in self._windows(scale.shape)]
        count = flat_size(self.output_shape(scale.shape))
        offset = np.full(count, top / 2 * scale.delta)
        table_index = np.zeros(count, dtype=np.int32)

        def maximum(a: T, b: T) -> T:
            rise = circuit.lookup(circuit.subtract(a, b), table, table_index)
            return circuit.add(b, circuit.add_constant(rise, offset))

        return _tree(values, maximum)


def _tree(values: list[T], maximum: Callable[[T, T], T]) -> T:
    """Pairs neighbors until one value is left; a value without a neighbor goes to the next round."""
    while len(values) > 1:
        left_over = values[len(values) // 2 * 2 :]
        values = [maximum(a, b) for a, b in zip(values[0::2], values[1::2], strict=False)] + left_over
    return values[0]
