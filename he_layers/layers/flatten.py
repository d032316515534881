"""Flatten (C, H, W) to a vector in C order."""

from dataclasses import dataclass
from typing import ClassVar

from ciphershift.he_layers.layers.layer import Circuit, IntArray, Layer, Scale, Shape, T, flat_size


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Layer):
    """The same values under a flat shape."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, shape: Shape) -> Shape:
        """(C * H * W,)."""
        return (flat_size(shape),)

    def plain(self, x: IntArray) -> IntArray:
        """`[batch, *shape]` -> `[batch, C * H * W]`."""
        return x.reshape(len(x), -1)

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Nothing to do: circuits address values by their flat index."""
        return x
