"""The end of a network as one matrix: everything that it returns, from the results of its last look-ups.

Behind the last look-ups there are only sums and moves: dense layers, convolutions, averages, additions, slices. All of it together is one
linear map, so several outputs, maps of logits and averages of logits need no layer of their own: they are rows of the last dense layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.nn.activations import per_channel
from ciphershift.protocol.outputs import OUTPUTS, Part

HEAD = "outputs"
"""Name of the last layer where it is made here, and of what it computes."""
ONE = (1,)
"""Shape of an output that is a number for each sample."""
MAX_VALUES = 1024
"""That a client takes as one answer."""
MAX_WEIGHTS = 1 << 25
"""Of the matrix."""
ROWS = 64
"""That are computed at once."""
TOO_LARGE = "end in fewer values: pool them, or use a stride"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Output:
    """One output: the value that leaves the circuit, and what the client does to it."""

    name: str
    value: str
    place: str
    shape: Shape
    function: str | None


def with_one_head(traced: ir.TraceResult, input_shape: Shape) -> ir.TraceResult:
    """The operations with a dense layer at their end that gives every output, one after the other, and the outputs as ``parts``.

    A network that ends in nn.Linear, perhaps with a softmax or sigmoid behind it, stays as it is.

    Args:
        traced: without findings.
        input_shape: of one sample.
    """
    by_name = {operation.name: operation for operation in traced.operations}
    returned = traced.returned or {"": traced.operations[-1].name}
    outputs = [_output(name, value, by_name) for name, value in returned.items()]
    parts = tuple(Part(name=o.name, shape=o.shape, function=o.function) for o in outputs)
    traced = replace(traced, returned={output.name: output.value for output in outputs}, parts=parts)
    last = _named(outputs[0].value, by_name)
    count = sum(prod(output.shape) for output in outputs)
    if count > MAX_VALUES:
        problem = f"returns {count} values; at most {MAX_VALUES} fit into an answer"
        return replace(traced, findings=[ir.Finding(place=outputs[-1].place, problem=problem, instead=TOO_LARGE)])
    tail, sources = _tail([output.value for output in outputs], by_name)
    without_lookups = sources == [IMAGE]
    own = [o for o in map(by_name.get, tail) if not isinstance(o, ir.Flatten | ir.Affine | ir.Identity)]
    if len(outputs) == 1 and isinstance(last, ir.Linear) and (not without_lookups or own == [last]):
        return replace(traced, operations=traced.operations[: traced.operations.index(last) + 1])
    shapes = {IMAGE: input_shape} | {name: operation.shape for name, operation in by_name.items()}
    width = sum(prod(shapes[name]) for name in sources)
    place = outputs[-1].place
    if count * width > MAX_WEIGHTS:
        problem = f"returns {count} values, made of {width} results of look-ups; at most {MAX_WEIGHTS} weights"
        return replace(traced, findings=[ir.Finding(place=place, problem=problem, instead=TOO_LARGE)])
    if IMAGE in sources and not without_lookups:
        problem = "hands on the network's input without a look-up, and results of look-ups beside it"
        instead = "put an activation (nn.ReLU) between the input and the output, too: answers are packed from one kind"
        return replace(traced, findings=[ir.Finding(place=place, problem=problem, instead=instead)])
    weight, bias = _matrix(
        [by_name[name] for name in tail], [o.value for o in outputs], {n: shapes[n] for n in sources}
    )
    return replace(traced, operations=[*traced.operations, *_head(weight, bias, sources, shapes, place)])


def _output(name: str, value: str, by_name: dict[str, ir.Operation]) -> _Output:
    """An output without the function at its end that the client computes."""
    last = _named(value, by_name) or by_name[value]
    function = last.function if isinstance(last, ir.Output) else getattr(last, "torch_name", "")
    if isinstance(last, ir.Output | ir.LookUp) and function in OUTPUTS:
        return _Output(
            name=name, value=last.inputs[0], place=last.place, shape=last.shape or ONE, function=str(function)
        )
    return _Output(name=name, value=value, place=last.place, shape=last.shape or ONE, function=None)


def _named(name: str, by_name: dict[str, ir.Operation]) -> ir.Operation | None:
    """The operation that gives a value, behind operations that change nothing; none for the network's input."""
    operation = by_name.get(name)
    return _named(operation.inputs[0], by_name) if isinstance(operation, ir.Identity) else operation


def _tail(outputs: list[str], by_name: dict[str, ir.Operation]) -> tuple[list[str], list[str]]:
    """Names of the linear operations that the outputs are computed by, and of the values that these begin with, both in order."""
    needed, sources = set(outputs), set()
    for name in reversed([IMAGE, *by_name]):
        if name not in needed:
            continue
        if _linear(by_name.get(name)) is None:
            sources.add(name)
        else:
            needed |= set(by_name[name].inputs)
    return [n for n in by_name if n in needed - sources], [n for n in [IMAGE, *by_name] if n in sources]


def _linear(operation: ir.Operation | None) -> Callable[..., Tensor] | None:
    """What an operation does with values [B, ...], if it is linear but for a constant."""
    match operation:
        case ir.Conv2d(weight=weight, bias=bias, stride=stride, padding=padding, groups=groups):
            return lambda x: functional.conv2d(x, weight.double(), bias.double(), stride, padding, 1, groups)
        case ir.Linear(weight=weight, bias=bias):
            return lambda x: functional.linear(x, weight.double(), bias.double())
        case ir.Affine(scale=scale, shift=shift):
            return lambda x: x * per_channel(scale.double(), x) + per_channel(shift.double(), x)
        case ir.AvgPool2d(kernel=kernel, stride=stride, padding=padding):
            return lambda x: functional.avg_pool2d(x, kernel, stride, padding)
        case ir.Flatten(shape=shape) | ir.Reshape(shape=shape):
            return lambda x: x.reshape(len(x), *shape)
        case ir.Gather(shape=shape, index=index):
            return lambda *parts: _gathered(parts, index).view(-1, *shape)
        case ir.Add():
            return lambda *terms: torch.stack(terms).sum(0)
        case ir.Concat():
            return lambda *parts: torch.cat(parts, dim=1)
        case ir.ChannelShuffle(groups=groups):
            return lambda x: functional.channel_shuffle(x, groups)
        case ir.Identity():
            return lambda x: x
    return None


def _gathered(parts: tuple[Tensor, ...], index: Tensor) -> Tensor:
    flat = torch.cat([part.flatten(1) for part in parts], dim=1)
    return flat[:, index.clamp_min(0)] * (index >= 0)


def _matrix(tail: list[ir.Operation], outputs: list[str], sources: dict[str, Shape]) -> tuple[Tensor, Tensor]:
    """The linear map from all sources to all outputs, one after the other: [outputs, sources], and what it adds, [outputs].

    A row is the gradient of its output, which is the same everywhere.
    """

    def run(values: dict[str, Tensor]) -> Tensor:
        found = dict(values)
        for operation in tail:
            step = _linear(operation)
            assert step is not None, "the tail has linear operations only"
            found[operation.name] = step(*[found[name] for name in operation.inputs])
        return torch.cat([found[name].reshape(len(found[name]), -1) for name in outputs], dim=1)

    zeros = {name: torch.zeros(1, *shape, dtype=torch.float64) for name, shape in sources.items()}
    with torch.no_grad():
        bias = run(zeros)[0]
    rows = []
    for start in range(0, len(bias), ROWS):
        count = min(ROWS, len(bias) - start)
        inputs = {name: value.expand(count, *value.shape[1:]).clone().requires_grad_() for name, value in zeros.items()}
        with torch.enable_grad():
            total = run(inputs)[:, start : start + count].diagonal().sum()
        gradients = torch.autograd.grad(total, list(inputs.values()), materialize_grads=True)
        rows.append(torch.cat([gradient.flatten(1) for gradient in gradients], dim=1))
    return torch.cat(rows).float(), bias.float()


def _head(weight: Tensor, bias: Tensor, sources: list[str], shapes: dict[str, Shape], place: str) -> list[ir.Operation]:
    """The sources as one vector, and the dense layer on it."""
    operations: list[ir.Operation] = []
    vectors = []
    for number, name in enumerate(sources):
        if len(shapes[name]) > 1:
            flat = ir.Flatten(name=f"{HEAD}_from{number}", place=place, inputs=(name,), shape=(prod(shapes[name]),))
            operations.append(flat)
        vectors.append(operations[-1].name if len(shapes[name]) > 1 else name)
    if len(vectors) > 1:
        joined = ir.Concat(name=f"{HEAD}_joined", place=place, inputs=tuple(vectors), shape=(weight.shape[1],))
        operations.append(joined)
        vectors = [joined.name]
    mask = weight != 0
    head = ir.Linear(
        name=HEAD,
        place=place,
        inputs=tuple(vectors),
        shape=(len(weight),),
        computes=HEAD,
        weight=weight,
        bias=bias,
        mask=None if bool(mask.all()) else mask,
    )
    return [*operations, head]
