"""Dense layer whose weights are any integers of 16 bits, in a network without look-ups: products of ring elements cost the same for all."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import ProgramError
from ciphershift.he_layers.layers.linear import Linear


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense(Linear):
    """Matrix times vector, the only layer of its Program that is more than a move.

    Attributes:
        weight: int16 [O, I], any values; int8 in older Programs.
        bias: int32 [O] in integer units of the sums, or none.
        modulus: none; there is no exact profile without look-ups.
    """

    kind: ClassVar[str] = "dense"
    weight: NDArray[np.int16] | NDArray[np.int8]  # type: ignore[assignment]

    def _check_weight(self) -> None:
        if self.modulus is not None:
            raise ProgramError(f"layer {self.name!r} has modulus = {self.modulus}; {self.kind} has none: use linear")
        if self.weight.dtype not in ("int16", "int8") or self.weight.ndim != 2 or self.weight.size == 0:
            raise ProgramError(
                f"layer {self.name!r} has a weight of type {self.weight.dtype}, shape {self.weight.shape}; "
                f"{self.kind} takes int16 with 2 axes"
            )
