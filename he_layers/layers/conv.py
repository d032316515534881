"""Shift convolution: weights 0 or +-2^e, so that every product is a shift of torus words."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, ProgramError
from ciphershift.he_layers.layers.layer import (
    Entries,
    FloatArray,
    IntArray,
    LinearLayer,
    Shape,
    check_weights,
    check_window,
    window_size,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(LinearLayer):
    """Two-dimensional cross-correlation with zero padding and without bias (the bias is in the next relu).

    Attributes:
        weight: int8 [O, I / groups, kh, kw], values 0 or +-2^e.
    """

    kind: ClassVar[str] = "conv"
    weight: NDArray[np.int8]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def __post_init__(self) -> None:
        """Checks weights and window. Raises ProgramError."""
        check_weights(self, self.weight, 4)
        check_window(self, {"stride": self.stride}, least=1)
        check_window(self, {"padding": self.padding}, least=0)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ProgramError(
                f"layer {self.name!r} has {self.weight.shape[0]} output channels, not a multiple of groups = {self.groups}"
            )

    def output_shape(self, shape: Shape) -> Shape:
        """(O, H', W'). Raises BadShapeError if channels or window do not fit."""
        height, width = window_size(self, shape, self.weight.shape[2:], self.stride, self.padding)
        if shape[0] != self.weight.shape[1] * self.groups:
            raise BadShapeError(
                f"layer {self.name!r} takes {self.weight.shape[1] * self.groups} channels, its input is {shape}"
            )
        return self.weight.shape[0], height, width

    def combine(self, x: FloatArray) -> FloatArray:
        """[batch, I, H, W] -> [batch, O, H', W'] as one matrix product per group."""
        return self._correlate(x, self.weight.astype(np.float64))

    def combine_squares(self, x: FloatArray) -> FloatArray:
        """The same with squared weights."""
        return self._correlate(x, self.weight.astype(np.float64) ** 2)

    def _correlate(self, x: FloatArray, weight: FloatArray) -> FloatArray:
        batch, maps = len(x), self.weight.shape[0] // self.groups
        _, height, width = self.output_shape(x.shape[1:])
        padded = np.pad(x, ((0, 0), (0, 0), *((side, side) for side in self.padding)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.weight.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: self.stride[0], :: self.stride[1]]
        result = np.empty((batch, self.weight.shape[0], height, width))
        for group, channels in enumerate(np.split(windows, self.groups, axis=1)):
            columns = channels.transpose(0, 2, 3, 1, 4, 5).reshape(batch * height * width, -1)
            kernel = weight[group * maps : (group + 1) * maps].reshape(maps, -1)
            sums = (columns @ kernel.T).reshape(batch, height, width, maps)
            result[:, group * maps : (group + 1) * maps] = sums.transpose(0, 3, 1, 2)
        return result

    def entries(self, shape: Shape, rows: IntArray) -> Entries:
        """The taps of each chosen output that lie on the image."""
        channels, height, width = shape
        maps, inputs = self.weight.shape[:2]
        o, y, x = np.unravel_index(rows, self.output_shape(shape))
        i, ky, kx = (grid.reshape(-1) for grid in np.indices(self.weight.shape[1:]))
        source_y = y[:, None] * self.stride[0] + (ky - self.padding[0])
        source_x = x[:, None] * self.stride[1] + (kx - self.padding[1])
        weight = self.weight.reshape(maps, -1)[o]
        used = (source_y >= 0) & (source_y < height) & (source_x >= 0) & (source_x < width) & (weight != 0)
        row, tap = np.nonzero(used)
        channel = i[tap] + (o // (maps // self.groups))[row] * inputs
        return Entries(
            rows=len(rows),
            columns=channels * height * width,
            row=row,
            column=(channel * height + source_y[row, tap]) * width + source_x[row, tap],
            values=weight[row, tap],
        )

    def products(self, shape: Shape) -> int:
        """For each tap, the weights there that are not 0 times the places where it lies on the image."""
        _, height, width = shape
        _, rows, columns = self.output_shape(shape)
        ky, kx = (
            np.arange(size)[:, None] - side for size, side in zip(self.weight.shape[2:], self.padding, strict=True)
        )
        y, x = np.arange(rows) * self.stride[0] + ky, np.arange(columns) * self.stride[1] + kx
        places = np.outer(((y >= 0) & (y < height)).sum(axis=1), ((x >= 0) & (x < width)).sum(axis=1))
        return int(((self.weight != 0).sum(axis=(0, 1)) * places).sum())

    def part(self, start: int, stop: int) -> Self | None:
        """The filters of these output channels; None for a grouped convolution, whose groups read different channels."""
        return replace(self, weight=self.weight[start:stop]) if self.groups == 1 else None
