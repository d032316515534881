"""relu(x) and relu(-x), joined, as one look-up for each value."""

from dataclasses import replace
from math import prod
from typing import Any

import torch

from ciphershift.models.compiler import ir
from ciphershift.models.compiler.rewrite import readers


def both_signs(operations: list[ir.Operation]) -> list[ir.Operation]:
    """The operations, where two ReLUs of a value and of its negative that are joined are a CReLU, whose channels are put in order.

    Nothing reads the two ReLUs any more.
    """
    counts, by_name = readers(operations), {operation.name: operation for operation in operations}
    result: list[ir.Operation] = []
    for operation in operations:
        ramps = [by_name.get(name) for name in operation.inputs]
        if isinstance(operation, ir.Concat) and len(ramps) == 2 and all(counts[name] == 1 for name in operation.inputs):
            first, second = ramps
            if (
                isinstance(first, ir.ReLU)
                and isinstance(second, ir.ReLU)
                and _opposite(first, second, by_name)
                and (first.high in (None, 1.0) or not _is_term(operation, operations))
            ):
                result += _joined(operation, first)
                continue
        result.append(operation)
    return result


def apart_where_pooled(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Where a max-pool reads both signs, the negative sums get a linear layer of their own: each sign is then pooled before its ReLU.

    The greatest of relu(-x) is the ReLU of the greatest -x, another number than that of x; as levels, behind a joint look-up, both would be
    compared on a scale on which noise is most of them.
    """
    counts, by_name = readers(operations), {operation.name: operation for operation in operations}
    before: dict[str, list[ir.Operation]] = {}
    moved: dict[str, ir.Operation] = {}
    for pool in operations:
        joined = by_name.get(pool.inputs[0]) if isinstance(pool, ir.MaxPool2d) else None
        if not isinstance(joined, ir.Concat) or counts[joined.name] != 1 or len(joined.inputs) != 2:
            continue
        first, second = (by_name.get(name) for name in joined.inputs)
        if not (isinstance(first, ir.ReLU) and isinstance(second, ir.ReLU) and _opposite(first, second, by_name)):
            continue
        turned = _turned(first, second, by_name)
        sums = _sums(turned.inputs[0], by_name)
        if sums and counts[turned.name] == 1 and turned.name not in before:
            names = {operation.name: f"{operation.name}_turned" for operation in sums}
            before[turned.name] = [
                replace(o, name=names[o.name], inputs=tuple(names.get(i, i) for i in o.inputs), computes=None)
                for o in sums
            ]
            moved[turned.name] = replace(turned, inputs=(names[turned.inputs[0]],))
    return [each for o in operations for each in (*before.get(o.name, ()), moved.get(o.name, o))]


def _turned(first: ir.ReLU, second: ir.ReLU, by_name: dict[str, ir.Operation]) -> ir.Operation:
    """What gives one of them the negative of what the other one reads."""
    a, b = by_name.get(first.inputs[0]), by_name.get(second.inputs[0])
    turned = a if _negative(a, second.inputs[0]) else b
    assert turned is not None, "they are opposite"
    return turned


def _sums(name: str, by_name: dict[str, ir.Operation]) -> list[ir.Operation]:
    """A linear layer and the affine maps behind it, which give this value; nothing if it comes from elsewhere."""
    found: list[ir.Operation] = []
    operation = by_name.get(name)
    while isinstance(operation, ir.Affine):
        found.insert(0, operation)
        operation = by_name.get(operation.inputs[0])
    return [operation, *found] if isinstance(operation, ir.Conv2d | ir.Linear) else []


def _opposite(first: ir.ReLU, second: ir.ReLU, by_name: dict[str, ir.Operation]) -> bool:
    """Whether both are the same ramp from zero on, one of a value and the other of its negative."""
    sources = [first.inputs[0], second.inputs[0]]
    turned = any(_negative(by_name.get(a), b) for a, b in (sources, reversed(sources)))
    return turned and (first.low, first.high) == (0.0, second.high) and second.low == 0


def _is_term(operation: ir.Operation, operations: list[ir.Operation]) -> bool:
    """Whether a sum reads the values as they are: it asks for units that are powers of two, in which other caps than one are none."""
    readers = [other for other in operations if operation.name in other.inputs]
    moved = [other for other in readers if not isinstance(other, ir.Conv2d | ir.Linear | ir.Activation)]
    return any(isinstance(other, ir.Add) or _is_term(other, operations) for other in moved)


def _negative(operation: ir.Operation | None, of: str) -> bool:
    return (
        isinstance(operation, ir.Affine)
        and operation.inputs == (of,)
        and bool((operation.scale == -1).all() and (operation.shift == 0).all())
    )


def _joined(concat: ir.Concat, first: ir.ReLU) -> list[ir.Operation]:
    """The look-ups, and the first results of all channels before the second ones."""
    channels, places = first.shape[0], prod(first.shape[1:])
    name = f"{concat.name}_signs"
    ramps = ir.CReLU(name=name, place=concat.place, inputs=first.inputs, shape=concat.shape, high=first.high)
    order: dict[str, Any] = {
        "name": concat.name,
        "place": concat.place,
        "inputs": (name,),
        "shape": concat.shape,
        "computes": concat.computes,
    }
    if len(concat.shape) == 3:
        return [ramps, ir.ChannelShuffle(**order, groups=channels)]
    index = torch.arange(2 * channels * places).view(channels, 2, places).transpose(0, 1).flatten()
    return [ramps, ir.Gather(**order, index=index)]
