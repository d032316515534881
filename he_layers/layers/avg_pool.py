"""Average pool as the integer sum over each window; the division is part of the next layer's multiplier."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from he_layers.layers.layer import Entries, FloatArray, LinearLayer, Shape, check_window, flat_size, window_size


@dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool(LinearLayer):
    """Sum over windows of each channel."""

    kind: ClassVar[str] = "avg_pool"
    kernel: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        """Checks the window. Raises ProgramError."""
        check_window(self, {"kernel": self.kernel, "stride": self.stride}, least=1)

    def output_shape(self, shape: Shape) -> Shape:
        """(C, H', W'); what does not fill a window is left out."""
        return shape[0], *window_size(self, shape, self.kernel, self.stride, (0, 0))

    def combine(self, x: FloatArray) -> FloatArray:
        """[batch, C, H, W] -> [batch, C, H', W']."""
        windows = np.lib.stride_tricks.sliding_window_view(x, self.kernel, axis=(2, 3))
        sums: FloatArray = windows[:, :, :: self.stride[0], :: self.stride[1]].sum(axis=(4, 5))
        return sums

    def entries(self, shape: Shape) -> Entries:
        """Sparse matrix of ones [C * H' * W', C * H * W]."""
        places = np.arange(flat_size(shape)).reshape(shape)
        windows = np.lib.stride_tricks.sliding_window_view(places, self.kernel, axis=(1, 2))
        column = windows[:, :: self.stride[0], :: self.stride[1]].reshape(-1, self.kernel[0] * self.kernel[1])
        row = np.repeat(np.arange(len(column)), column.shape[1])
        return Entries(
            rows=len(column),
            columns=flat_size(shape),
            row=row,
            column=column.reshape(-1),
            values=np.ones(column.size, dtype=np.int8),
        )
