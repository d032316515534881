"""The intermediate form of a network: a graph of named steps in torch's vocabulary, with their float weights.

The reader (models.compiler.trace) writes it, simplify brings it into the form that is trained and exported. Shapes are those of one image
or sample, without the batch; the first axis is the channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ciphershift.he_layers.layers import Shape
from ciphershift.protocol.outputs import Part

Pair = tuple[int, int]
Function = Callable[[Tensor], Tensor]
"""Of one number, on tensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One step.

    Attributes:
        name: unique identifier.
        place: where the user finds it: path of the module, or line of the source.
        inputs: names of the operations it reads; he_layers.program.IMAGE is the network's input.
        shape: of its result for one sample.
        computes: name of the traced step whose value this one has; none if no step of the module has it.
    """

    name: str
    place: str
    inputs: tuple[str, ...]
    shape: Shape
    computes: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(Operation):
    """Cross-correlation with zero padding; ``weight`` [O, I / groups, kh, kw], ``bias`` [O]; ``source`` as of Linear."""

    weight: Tensor
    bias: Tensor
    source: int = 0
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Operation):
    """``weight`` [O, I] times a vector, plus ``bias`` [O]; weights where ``mask`` is false are no weights, but always 0.

    Attributes:
        source: number of the module's tensor that the weights come from, by which models.compiler.ties sees who shares them; 0 for none.
    """

    weight: Tensor
    bias: Tensor
    mask: Tensor | None = None
    source: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Operation):
    """``scale`` [C] times each channel plus ``shift`` [C]: a batch norm, a constant factor, a constant addend.

    With positive scales it costs nothing: it only changes what the integers stand for.
    """

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Operation):
    """A function of one number: one look-up for each value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReLU(Activation):
    """clip(x, low, high), with low <= 0 < high; no ``high``: a ReLU."""

    low: float = 0.0
    high: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CReLU(Activation):
    """clip(x, 0, high) of each channel, and clip(-x, 0, high) in the channel behind it; no ``high``: a concatenated ReLU.

    One look-up for each value of the input, which has half as many channels as the result.
    """

    high: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LookUp(Activation):
    """Any other function.

    Attributes:
        function: on [B, C, ...].
        torch_name: of the function in torch's operator set, if it is one of these alone.
        rises: whether it never falls, so that a max-pool may change places with it.
        by_channel: whether it is another one for each channel.
    """

    function: Function
    torch_name: str = ""
    rises: bool = False
    by_channel: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Pointwise(Operation):
    """A function of several values at the same place, as a product; attributes as of LookUp.

    models.compiler.pointwise makes it a LookUp where all are functions of one value.
    """

    function: Callable[..., Tensor]
    torch_name: str = ""
    by_channel: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(Operation):
    """Greatest value of each window; places in the padding hold nothing. Look-ups: he_layers.layers.MaxPool2d.lookups."""

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
class Reshape(Operation):
    """The same values in C order under another shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gather(Operation):
    """Values at new places: slices, transpositions, padding, upsampling, broadcasting.

    Attributes:
        index: int64 [values of the result], each a flat index into the inputs one after the other, or -1 for zero.
    """

    index: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Operation):
    """Sum of its inputs, which have one shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Operation):
    """Inputs one after the other along the channels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelShuffle(Operation):
    """Channel shuffle of ``groups`` groups."""

    groups: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Output(Operation):
    """A softmax over all values, its logarithm, or a sigmoid, by name: only as the last step, where the client does it."""

    function: str


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
    """Operations in order, each after its inputs, and everything that cannot be evaluated.

    Attributes:
        operations: in order.
        findings: what cannot be evaluated.
        returned: names of the operations whose values the module returns, by the names that it gives them; "" for an only one.
        parts: what the last operation gives, once it gives everything that is returned (models.compiler.head).
    """

    operations: list[Operation] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    returned: dict[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def has_lookups(operations: Sequence[Operation]) -> bool:
    """Whether there are any; a network without is one dense layer on its input."""
    return any(isinstance(operation, Activation | MaxPool2d) for operation in operations)
