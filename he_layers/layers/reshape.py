"""The same values in C order under another shape."""

from dataclasses import dataclass
from typing import ClassVar

from ciphershift.errors import BadShapeError, ProgramError
from ciphershift.he_layers.layers.layer import Circuit, IntArray, Layer, Scale, Shape, T, flat_size


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Layer):
    """Values keep their order.

    Attributes:
        shape: of the result: one to three sides.
    """

    kind: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks the shape. Raises ProgramError."""
        check_result_shape(self, self.shape)

    def output_shape(self, shape: Shape) -> Shape:
        """The new shape. Raises BadShapeError unless it holds as many values as the input."""
        if flat_size(shape) != flat_size(self.shape):
            raise BadShapeError(
                f"layer {self.name!r} gives {self.shape}, its input is {shape}: another number of values"
            )
        return self.shape

    def plain(self, x: IntArray) -> IntArray:
        """`[batch, *shape]` -> `[batch, *self.shape]`."""
        return x.reshape(len(x), *self.shape)

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Nothing to do: circuits address values by their flat index."""
        return x


def check_result_shape(layer: Layer, shape: Shape) -> None:
    """Raises ProgramError unless ``shape`` is one to three integers of at least 1."""
    if not (isinstance(shape, tuple) and 1 <= len(shape) <= 3 and all(isinstance(s, int) and s >= 1 for s in shape)):
        raise ProgramError(
            f"layer {layer.name!r} has the shape {shape!r}; it takes one to three integers of at least 1"
        )
