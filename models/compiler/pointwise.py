"""Functions of one number, however they are written: x * sigmoid(x), |x| / (1 + |x|), torch.where(x > 0, x, 0.1 * x).

A look-up computes any function of one number. So every operation whose inputs are all functions of one value is one look-up of that value;
what lies between is not computed. An operation keeps a function for each value that it can be computed from.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.nn.activations import per_channel


@dataclass(frozen=True, kw_only=True, slots=True)
class _From:
    """How a value is computed from ``source``.

    Attributes:
        lookups: activations and products on the way.
    """

    source: str
    function: ir.Function
    lookups: int
    rises: bool
    by_channel: bool


def functions_of_one_number(operations: list[ir.Operation], input_shape: Shape) -> list[ir.Operation]:
    """The operations, where every function of one value that is no sum, shift or scale is one ReLU or LookUp of it."""
    shapes = {IMAGE: input_shape} | {operation.name: operation.shape for operation in operations}
    ways: dict[str, list[_From]] = {IMAGE: [_itself(IMAGE)]}
    result: list[ir.Operation] = []
    for operation in operations:
        found = _ways(operation, ways, shapes)
        best = max(found, key=lambda way: way.lookups, default=None)
        needed = isinstance(operation, ir.Pointwise) or (
            best is not None
            and best.lookups > isinstance(operation, ir.Activation)
            and not isinstance(operation, ir.Affine)
        )
        if needed and best is not None and not isinstance(operation, ir.Reshape | ir.Flatten):
            result += _looked_up(operation, best, shapes)
        else:
            result.append(operation)
        ways[operation.name] = [_itself(operation.name), *found]
    return result


def _looked_up(operation: ir.Operation, way: _From, shapes: dict[str, Shape]) -> list[ir.Operation]:
    """The operation as one look-up of ``way.source``, brought to the operation's shape."""
    base = {"place": operation.place, "shape": operation.shape}
    source, moved = way.source, []
    if shapes[source] != operation.shape:
        kind = ir.Flatten if len(operation.shape) == 1 else ir.Reshape
        moved = [kind(name=f"{operation.name}_source", inputs=(source,), **base)]  # type: ignore[arg-type]
        source = moved[0].name
    return [
        *moved,
        ir.LookUp(
            name=operation.name,
            inputs=(source,),
            computes=operation.computes,
            function=way.function,
            rises=way.rises,
            by_channel=way.by_channel,
            **base,  # type: ignore[arg-type]
        ),
    ]


def behind(activation: ir.Activation, affine: ir.Affine) -> ir.LookUp:
    """Both as one look-up of what the activation reads."""
    step, then = _step(activation), _step(affine)
    assert step is not None and then is not None, "both are functions of one number"
    way = _composed(affine, then, [_composed(activation, step, [_itself(activation.inputs[0])])])
    return ir.LookUp(
        name=affine.name,
        place=activation.place,
        inputs=activation.inputs,
        shape=activation.shape,
        function=way.function,
        rises=way.rises,
        by_channel=way.by_channel,
    )


def _ways(operation: ir.Operation, ways: dict[str, list[_From]], shapes: dict[str, Shape]) -> list[_From]:
    """All values that an operation is a function of one number of, nearest first."""
    step = _step(operation)
    if step is None or any(shapes[name][0] != operation.shape[0] for name in operation.inputs):
        return []
    inputs = [ways[name] for name in operation.inputs]
    found = []
    for way in inputs[0]:
        others = [next((other for other in each if other.source == way.source), None) for each in inputs]
        if all(others):
            found.append(_composed(operation, step, [other for other in others if other is not None]))
    return found


def _itself(name: str) -> _From:
    return _From(source=name, function=lambda x: x, lookups=0, rises=True, by_channel=False)


def _composed(operation: ir.Operation, step: Callable[..., Tensor], inner: list[_From]) -> _From:
    own = isinstance(operation, ir.Activation | ir.Pointwise)
    rises = not isinstance(operation, ir.Pointwise) and all(way.rises for way in inner)
    if isinstance(operation, ir.LookUp):
        rises = rises and operation.rises
    elif isinstance(operation, ir.Affine):
        rises = rises and bool((operation.scale >= 0).all())
    by_channel = any(way.by_channel for way in inner) or getattr(operation, "by_channel", False)
    if isinstance(operation, ir.Affine):
        by_channel = by_channel or any(len(_channels(v)) > 1 for v in (operation.scale, operation.shift))
    return _From(
        source=inner[0].source,
        function=lambda x: step(*[way.function(x) for way in inner]),
        lookups=own + max(way.lookups for way in inner),
        rises=rises,
        by_channel=by_channel,
    )


def _step(operation: ir.Operation) -> Callable[..., Tensor] | None:
    """What an operation does with the values at one place; none if it is no such operation."""
    match operation:
        case ir.LookUp() | ir.Pointwise():
            return operation.function
        case ir.ReLU():
            return lambda x: torch.clamp(x, operation.low, operation.high)
        case ir.Affine():
            scale, shift = _channels(operation.scale), _channels(operation.shift)
            return lambda x: x * per_channel(scale.to(x), x) + per_channel(shift.to(x), x)
        case ir.Add():
            return lambda *terms: torch.stack(terms).sum(0)
        case ir.Reshape() | ir.Flatten():
            return lambda x: x
    return None


def _channels(values: Tensor) -> Tensor:
    """One number for each channel, or one alone if they are the same: the function then fits any channels."""
    return values[:1] if bool((values == values[0]).all()) else values
