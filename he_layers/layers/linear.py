"""Shift dense layer: weights 0 or +-2^e, optional integer bias (for the last layer; elsewhere the bias is in the next relu)."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

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
    check_modulus,
    check_one_turn,
    check_weights,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(LinearLayer):
    """Matrix times vector.

    Attributes:
        weight: int8 [O, I], values 0 or +-2^e.
        bias: int32 [O] in integer units of the sums, or none.
        modulus: of the sums where they are logits in the exact profile, an even number; none elsewhere.
    """

    kind: ClassVar[str] = "linear"
    weight: NDArray[np.int8]
    bias: NDArray[np.int32] | None = None
    modulus: int | None = None

    def __post_init__(self) -> None:
        """Checks weights and bias. Raises ProgramError."""
        self._check_weight()
        check_modulus(self, self.modulus)
        if self.bias is not None and (self.bias.dtype != np.int32 or self.bias.shape != self.weight.shape[:1]):
            raise ProgramError(
                f"layer {self.name!r} has a bias of type {self.bias.dtype}, shape {self.bias.shape}; "
                f"it takes int32 [{self.weight.shape[0]}]"
            )

    def _check_weight(self) -> None:
        check_weights(self, self.weight, 2)

    def output_shape(self, shape: Shape) -> Shape:
        """(O,). Raises BadShapeError unless the input is a vector of I values."""
        if shape != self.weight.shape[1:]:
            raise BadShapeError(
                f"layer {self.name!r} takes {self.weight.shape[1:]}, its input is {shape}; flatten it first"
            )
        return (self.weight.shape[0],)

    def output_delta(self, delta: float) -> float:
        """The input's. Raises ProgramError if the modulus is not one turn for it."""
        check_one_turn(self, self.modulus, delta)
        return delta

    def combine(self, x: FloatArray) -> FloatArray:
        """[batch, I] -> [batch, O] without the bias."""
        return x @ self.weight.T.astype(np.float64)

    def entries(self, shape: Shape, rows: IntArray) -> Entries:
        """The chosen rows of the weight [O, I]."""
        weight = self.weight[rows]
        row, column = np.nonzero(weight)
        return Entries(rows=len(rows), columns=weight.shape[1], row=row, column=column, values=weight[row, column])

    def part(self, start: int, stop: int) -> Self:
        """The rows of these outputs."""
        bias = None if self.bias is None else self.bias[start:stop]
        return replace(self, weight=self.weight[start:stop], bias=bias)

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, I] -> [batch, O]; residues from -modulus/2 to modulus/2 - 1 if there is one."""
        sums = super().plain(x) + (0 if self.bias is None else self.bias)
        return sums if self.modulus is None else (sums + self.modulus // 2) % self.modulus - self.modulus // 2

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Integer combinations, then the bias on the bodies; no look-up.

        Noise: the variance of each input is multiplied by the sum of the squared weights.
        """
        sums = super().apply(circuit, x, scale)
        return sums if self.bias is None else circuit.add_constant(sums, self.bias.astype(np.float64) * scale.delta)
