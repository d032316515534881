"""The operations that an encrypted network is made of, as read from a user's module: a graph of named steps with their float weights."""

from dataclasses import dataclass, field

from torch import Tensor

from ciphershift.he_layers.layers import Shape

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One step.

    Attributes:
        name: unique identifier.
        place: where the user finds it: path of the module, or line of the source.
        inputs: names of the operations it reads; he_layers.program.IMAGE is the image.
        shape: of its result for one image.
    """

    name: str
    place: str
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(Operation):
    """Cross-correlation with zero padding; ``weight`` [O, I / groups, kh, kw], ``bias`` [O]."""

    weight: Tensor
    bias: Tensor
    stride: Pair
    padding: Pair
    groups: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Operation):
    """``weight`` [O, I] times a vector, plus ``bias`` [O]."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Operation):
    """``scale`` [C] times each channel plus ``shift`` [C]: a batch norm with the statistics it has learned."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ReLU(Operation):
    """clip(affine(x), low, high), where ``affine`` has positive scales; no ``high``: a ReLU. One look-up for each value."""

    low: float
    high: float | None
    affine: Affine | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(Operation):
    """Greatest value of each window; places in the padding hold nothing. One look-up less than a window has places, for each result."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool2d(Operation):
    """Average of each window; places in the padding hold zero."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Operation):
    """All values as a vector in C order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Operation):
    """Sum of its inputs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Operation):
    """Inputs one after the other along the channels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelShuffle(Operation):
    """Channel shuffle of ``groups`` groups."""

    groups: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity(Operation):
    """Its input unchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that cannot be evaluated: where it is, what it is, what to use instead."""

    place: str
    problem: str
    instead: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.instead}"


@dataclass(kw_only=True)
class TraceResult:
    """What was read: operations in order, each after its inputs, and a finding for each step that is not supported."""

    operations: list[Operation] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
