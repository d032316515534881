"""Values at new places: slices, transpositions, padding, upsampling, broadcasting. Nothing is computed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, ProgramError
from ciphershift.he_layers.layers.layer import (
    Circuit,
    Entries,
    FloatArray,
    IntArray,
    LinearLayer,
    Scale,
    Shape,
    T,
    flat_size,
)
from ciphershift.he_layers.layers.reshape import check_result_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Gather(LinearLayer):
    """Each value of the result is a value of the input, or zero.

    Attributes:
        shape: of the result: one to three sides.
        index: int32 [values of the result], flat places in the input; -1 for zero.
    """

    kind: ClassVar[str] = "gather"
    shape: tuple[int, ...]
    index: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Checks shape and index. Raises ProgramError."""
        check_result_shape(self, self.shape)
        if self.index.dtype != np.int32 or self.index.shape != (flat_size(self.shape),):
            raise ProgramError(
                f"layer {self.name!r} has an index of type {self.index.dtype}, shape {self.index.shape}; "
                f"it takes int32 [{flat_size(self.shape)}]"
            )
        if self.index.min() < -1:
            raise ProgramError(f"layer {self.name!r} reads the place {self.index.min()}; places begin at 0, -1 is zero")

    def output_shape(self, shape: Shape) -> Shape:
        """The new shape. Raises BadShapeError if a place lies outside the input."""
        if self.index.max() >= flat_size(shape):
            raise BadShapeError(
                f"layer {self.name!r} reads the place {self.index.max()}; its input {shape} has {flat_size(shape)} values"
            )
        return self.shape

    def combine(self, x: FloatArray) -> FloatArray:
        """[batch, input] -> [batch, output]."""
        flat = x.reshape(len(x), -1)
        values = np.where(self.index >= 0, flat[:, np.maximum(self.index, 0)], 0.0)
        return values.reshape(len(x), *self.shape)

    def combine_squares(self, x: FloatArray) -> FloatArray:
        """The same: weights are one."""
        return self.combine(x)

    def entries(self, shape: Shape, rows: IntArray) -> Entries:
        """One for each row that is not zero."""
        index = self.index[rows]
        row = np.nonzero(index >= 0)[0]
        return Entries(
            rows=len(rows),
            columns=flat_size(shape),
            row=row,
            column=index[row].astype(np.int64),
            values=np.ones(len(row), dtype=np.int8),
        )

    def products(self, shape: Shape) -> int:
        """One for each value that is not zero."""
        return int((self.index >= 0).sum())

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Values at new places; no look-up, no noise."""
        if self.index.min() >= 0:
            return circuit.select(x, self.index.astype(np.int64))
        return super().apply(circuit, x, scale)
