"""Dense layer with weights of eight bits, for a network that has no look-up: products of ring elements cost the same for any integer."""

from dataclasses import dataclass
from typing import ClassVar

from ciphershift.errors import ProgramError
from ciphershift.he_layers.layers.linear import Linear


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense(Linear):
    """Matrix times vector, the only layer of its Program that is more than a move.

    Attributes:
        weight: int8 [O, I], any values.
        bias: int32 [O] in integer units of the sums, or none.
        modulus: none; there is no exact profile without look-ups.
    """

    kind: ClassVar[str] = "dense"

    def _check_weight(self) -> None:
        if self.modulus is not None:
            raise ProgramError(f"layer {self.name!r} has modulus = {self.modulus}; {self.kind} has none: use linear")
        if self.weight.dtype != "int8" or self.weight.ndim != 2 or self.weight.size == 0:
            raise ProgramError(
                f"layer {self.name!r} has a weight of type {self.weight.dtype}, shape {self.weight.shape}; "
                f"{self.kind} takes int8 with 2 axes"
            )
