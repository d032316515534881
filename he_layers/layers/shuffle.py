"""Channel shuffle between grouped convolutions (ShuffleNet, arXiv 1707.01083): values change places, nothing is computed."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ciphershift.errors import BadShapeError, ProgramError
from ciphershift.he_layers.layers.layer import Circuit, IntArray, Layer, Scale, Shape, T, flat_size


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelShuffle(Layer):
    """Channel (group, place) of ``groups`` equal groups goes to (place, group)."""

    kind: ClassVar[str] = "shuffle"
    groups: int

    def __post_init__(self) -> None:
        """Checks the number of groups. Raises ProgramError."""
        if self.groups < 1:
            raise ProgramError(f"layer {self.name!r} has groups = {self.groups}; it takes at least 1")

    def output_shape(self, shape: Shape) -> Shape:
        """The input's. Raises BadShapeError unless the channels can be cut into ``groups`` equal parts."""
        if not shape or shape[0] % self.groups:
            raise BadShapeError(f"layer {self.name!r} shuffles {self.groups} equal groups, its input is {shape}")
        return shape

    def _order(self, channels: int) -> IntArray:
        """Input channel of each output channel."""
        return np.arange(channels).reshape(self.groups, -1).T.reshape(-1)

    def plain(self, x: IntArray) -> IntArray:
        """[batch, C, ...] -> [batch, C, ...] in the new order."""
        return x[:, self._order(x.shape[1])]

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """Values at new places; no look-up, no noise."""
        places = np.arange(flat_size(scale.shape)).reshape(scale.shape)
        return circuit.select(x, places[self._order(scale.shape[0])].reshape(-1))
