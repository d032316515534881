"""Average pool as the integer sum over each window; the division is part of the next layer's multiplier."""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from ciphershift.he_layers.layers.layer import (
    LATER,
    Entries,
    FloatArray,
    IntArray,
    LinearLayer,
    Shape,
    check_window,
    flat_size,
    window_size,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool2d(LinearLayer):
    """Sum over windows of each channel; padding counts as zeros."""

    kind: ClassVar[str] = "avg_pool"
    channelwise: ClassVar[bool] = True
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = field(default=(0, 0), metadata=LATER)

    def __post_init__(self) -> None:
        """Checks the window. Raises ProgramError."""
        check_window(self, {"kernel": self.kernel, "stride": self.stride}, least=1)
        check_window(self, {"padding": self.padding}, least=0)

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W'); what does not fill a window is left out."""
        return shape[0], *window_size(self, shape, self.kernel, self.stride, self.padding)

    def combine(self, x: FloatArray) -> FloatArray:
        """[batch, C, H, W] -> [batch, C, H', W']."""
        padded = np.pad(x, ((0, 0), (0, 0), *((side, side) for side in self.padding)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=(2, 3))
        sums: FloatArray = windows[:, :, :: self.stride[0], :: self.stride[1]].sum(axis=(4, 5))
        return sums

    def entries(self, shape: Shape, rows: IntArray) -> Entries:
        """Ones at the places of each window."""
        c, y, x = np.unravel_index(rows, self.output_shape(shape))
        ky, kx = (grid.reshape(-1) for grid in np.mgrid[0 : self.kernel[0], 0 : self.kernel[1]])
        source_y = y[:, None] * self.stride[0] + ky - self.padding[0]
        source_x = x[:, None] * self.stride[1] + kx - self.padding[1]
        inside = (source_y >= 0) & (source_y < shape[1]) & (source_x >= 0) & (source_x < shape[2])
        column = ((c[:, None] * shape[1] + source_y) * shape[2] + source_x)[inside]
        return Entries(
            rows=len(rows),
            columns=flat_size(shape),
            row=np.nonzero(inside)[0],
            column=column,
            values=np.ones(column.size, dtype=np.int8),
        )

    def part(self, start: int, stop: int) -> Self:
        """The layer itself: it treats every channel alike."""
        return self
