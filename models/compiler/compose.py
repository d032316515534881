"""Steps that only move values, one after the other, as one step."""

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from ciphershift.models.compiler import ir

Move = ir.Gather | ir.Reshape | ir.Flatten


def compose_moves(operations: list[ir.Operation], input_shape: tuple[int, ...]) -> list[ir.Operation]:
    """The operations, where a step that moves values reads no other such step, and a part of joined values only what it takes."""
    by_name: dict[str, ir.Operation] = {}
    result: list[ir.Operation] = []
    for operation in operations:
        before = None
        while before is not operation:
            before = operation
            if isinstance(operation, Move) and any(isinstance(by_name.get(name), Move) for name in operation.inputs):
                operation = _composed(operation, by_name, input_shape)
            if isinstance(operation, ir.Gather) and isinstance(by_name.get(operation.inputs[0]), ir.Concat):
                operation = _without_others(operation, by_name, input_shape)
        by_name[operation.name] = operation
        result.append(operation)
    return result


def _without_others(part: ir.Gather, by_name: dict[str, ir.Operation], input_shape: tuple[int, ...]) -> ir.Operation:
    """A part of joined values as a part of those values alone that it takes."""
    joined = by_name[part.inputs[0]]
    sizes = [prod(by_name[name].shape if name in by_name else input_shape) for name in joined.inputs]
    ends = torch.tensor(sizes).cumsum(0)
    taken = part.index[part.index >= 0]
    used = sorted(set(torch.bucketize(taken, ends, right=True).tolist()))
    if len(part.inputs) > 1 or len(used) == len(sizes) or not used:
        return part
    moved, start = part.index.clone(), 0
    for i in used:
        first = int(ends[i]) - sizes[i]
        inside = (part.index >= first) & (part.index < first + sizes[i])
        moved[inside] = part.index[inside] - first + start
        start += sizes[i]
    return as_move(replace(part, inputs=tuple(joined.inputs[i] for i in used), index=moved), start)


def _composed(operation: Move, by_name: dict[str, ir.Operation], input_shape: tuple[int, ...]) -> ir.Operation:
    """The operation on what its inputs read."""
    inputs: list[str] = []
    places: list[Tensor] = []  # of each input's values, in the new inputs one after the other
    start = 0
    for name in operation.inputs:
        source = by_name.get(name)
        sources = source.inputs if isinstance(source, Move) else (name,)
        size = sum(prod(by_name[n].shape) if n in by_name else prod(input_shape) for n in sources)
        index = source.index if isinstance(source, ir.Gather) else torch.arange(size)
        places.append(torch.where(index >= 0, index + start, index))
        inputs += sources
        start += size
    joined = torch.cat(places)
    if isinstance(operation, ir.Gather):
        joined = torch.where(operation.index >= 0, joined[operation.index.clamp_min(0)], -1)
    base = {"name": operation.name, "place": operation.place, "inputs": tuple(inputs), "computes": operation.computes}
    return as_move(ir.Gather(**base, shape=operation.shape, index=joined), start)  # type: ignore[arg-type]


def as_move(gather: ir.Gather, size: int) -> ir.Operation:
    """The simplest operation for a gather from inputs of ``size`` values together."""
    if len(gather.inputs) > 1 or gather.index.numel() != size or not torch.equal(gather.index, torch.arange(size)):
        return gather
    base = {"name": gather.name, "place": gather.place, "inputs": gather.inputs, "computes": gather.computes}
    return (ir.Flatten if len(gather.shape) == 1 else ir.Reshape)(**base, shape=gather.shape)  # type: ignore[arg-type]


def without_idle_moves(operations: list[ir.Operation], input_shape: tuple[int, ...]) -> list[ir.Operation]:
    """The operations without changes of a shape into itself."""
    shapes = {operation.name: operation.shape for operation in operations}
    return [
        ir.Identity(name=o.name, place=o.place, inputs=o.inputs, shape=o.shape, computes=o.computes)
        if isinstance(o, ir.Flatten | ir.Reshape) and shapes.get(o.inputs[0], input_shape) == o.shape
        else replace(o)
        for o in operations
    ]
