"""Sum of several values of one shape, as in a residual block; a layer with several inputs sees them joined along the channels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ciphershift.errors import BadShapeError, ProgramError
from ciphershift.he_layers.layers.layer import Entries, FloatArray, IntArray, LinearLayer, Shape, flat_size


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(LinearLayer):
    """Sum of ``terms`` equal parts of the first axis.

    Attributes:
        terms: how many values are added: the number of inputs, if each input is one of them.
    """

    kind: ClassVar[str] = "add"
    terms: int

    def __post_init__(self) -> None:
        """Checks the number of terms. Raises ProgramError."""
        if self.terms < 1:
            raise ProgramError(f"layer {self.name!r} has terms = {self.terms}; it takes at least 1")

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one term. Raises BadShapeError unless the first axis can be cut into ``terms`` equal parts."""
        if not shape or shape[0] % self.terms:
            raise BadShapeError(f"layer {self.name!r} adds {self.terms} values of equal shape, its inputs are {shape}")
        return shape[0] // self.terms, *shape[1:]

    def combine(self, x: FloatArray) -> FloatArray:
        """[batch, terms * C, ...] -> [batch, C, ...]."""
        sums: FloatArray = x.reshape(len(x), self.terms, *self.output_shape(x.shape[1:])).sum(axis=1)
        return sums

    def entries(self, shape: Shape, rows: IntArray) -> Entries:
        """One for each term."""
        size = flat_size(self.output_shape(shape))
        column = rows[:, None] + np.arange(self.terms) * size
        row = np.repeat(np.arange(len(rows)), self.terms)
        return Entries(
            rows=len(rows),
            columns=flat_size(shape),
            row=row,
            column=column.reshape(-1),
            values=np.ones(row.size, dtype=np.int8),
        )
