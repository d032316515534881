"""Affine maps: batch norms, constant factors and addends. Where they go, so that they cost nothing."""

from dataclasses import replace
from typing import Any

import torch

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.pointwise import behind
from ciphershift.models.compiler.rewrite import inserted_after, readers, replaced

PASSIVE = (ir.Affine, ir.Reshape, ir.Flatten, ir.Gather, ir.Concat, ir.ChannelShuffle, ir.AvgPool2d)
"""Read sums where their source has sums, levels where it has levels."""


def affine_before_reshapes(operations: list[ir.Operation], input_shape: Shape) -> list[ir.Operation]:
    """An affine map right after a change of the shape that keeps the channels changes places with it, next to the layer before that."""
    by_name: dict[str, ir.Operation] = {}
    shapes = {IMAGE: input_shape}
    result: list[ir.Operation] = []

    def add(operation: ir.Operation) -> None:
        result.append(operation)
        by_name[operation.name], shapes[operation.name] = operation, operation.shape

    for operation in operations:
        source = by_name.get(operation.inputs[0])
        shape = shapes[source.inputs[0]] if isinstance(source, ir.Reshape | ir.Flatten) else ()
        if isinstance(operation, ir.Affine) and source is not None and shape[:1] == operation.shape[:1]:
            first = replace(
                operation, name=f"{operation.name}_before", inputs=source.inputs, shape=shape, computes=None
            )
            add(first)
            add(replace(source, name=operation.name, inputs=(first.name,), computes=operation.computes))
        else:
            add(operation)
    return result


def fold_affine(operations: list[ir.Operation]) -> list[ir.Operation]:
    """An affine map goes into the linear layer or the affine map before it, and behind the max-pool after it if it rises."""
    changed = True
    while changed:
        changed = False
        counts = readers(operations)
        by_name = {operation.name: operation for operation in operations}
        for affine in operations:
            if not isinstance(affine, ir.Affine):
                continue
            before = by_name.get(affine.inputs[0])
            after = [operation for operation in operations if affine.name in operation.inputs]
            if isinstance(before, ir.Conv2d | ir.Linear) and counts[before.name] == 1:
                folded: ir.Operation = scaled(before, affine)
                operations = replaced(operations, {before.name: folded}, drop=affine)
            elif isinstance(before, ir.Affine) and counts[before.name] == 1:
                folded = replace(
                    before,
                    scale=before.scale * affine.scale,
                    shift=before.shift * affine.scale + affine.shift,
                    computes=affine.computes,
                )
                operations = replaced(operations, {before.name: folded}, drop=affine)
            elif affine.scale.min() > 0 and len(after) == 1 and isinstance(after[0], ir.MaxPool2d):
                pool = replace(after[0], inputs=affine.inputs, computes=None)
                moved = replace(affine, inputs=(pool.name,), shape=pool.shape, computes=after[0].computes)
                operations = replaced(operations, {pool.name: pool}, drop=affine)
                operations = inserted_after(operations, pool, moved)
            else:
                continue
            changed = True
            break
    return operations


def scaled(linear: ir.Conv2d | ir.Linear, affine: ir.Affine) -> ir.Conv2d | ir.Linear:
    """The linear layer with an affine map of its sums folded in."""
    scale = affine.scale.reshape(-1, *[1] * (linear.weight.dim() - 1))
    bias = linear.bias * affine.scale + affine.shift
    return replace(linear, weight=linear.weight * scale, bias=bias, computes=affine.computes)


def signs_into_convolutions(operations: list[ir.Operation]) -> list[ir.Operation]:
    """An affine map that does not rise becomes a convolution of one tap for each channel, unless only linear layers read it."""
    result: list[ir.Operation] = []
    for o in operations:
        turns = isinstance(o, ir.Affine) and o.scale.min() <= 0 and not read_by_linear(o, operations)
        result += one_tap(o) if isinstance(o, ir.Affine) and turns else [o]
    return result


def read_by_linear(operation: ir.Operation, operations: list[ir.Operation]) -> bool:
    """Whether all readers, behind operations that only move values, are linear layers, which take any sign."""
    found = [o for o in operations if operation.name in o.inputs]
    return (
        bool(found)
        and bool((getattr(operation, "scale", torch.ones(1)) != 0).all())
        and all(
            isinstance(o, ir.Conv2d | ir.Linear) or (isinstance(o, PASSIVE) and read_by_linear(o, operations))
            for o in found
        )
    )


def one_tap(affine: ir.Affine) -> list[ir.Operation]:
    """The same map as a linear layer without sums over channels; a series [C, L] is an image of one row meanwhile."""
    base: dict[str, Any] = {"place": affine.place}
    last: dict[str, Any] = base | {"name": affine.name, "shape": affine.shape, "computes": affine.computes}
    if len(affine.shape) == 1:
        return [ir.Linear(**last, inputs=affine.inputs, weight=torch.diag(affine.scale), bias=affine.shift)]
    taps: dict[str, Any] = {
        "weight": affine.scale[:, None, None, None],
        "bias": affine.shift,
        "groups": len(affine.scale),
    }
    if len(affine.shape) == 3:
        return [ir.Conv2d(**last, inputs=affine.inputs, **taps)]
    shape, row, sums = (affine.shape[0], 1, affine.shape[1]), f"{affine.name}_row", f"{affine.name}_sums"
    return [
        ir.Reshape(**base, name=row, inputs=affine.inputs, shape=shape),
        ir.Conv2d(**base, name=sums, inputs=(row,), shape=shape, **taps),
        ir.Reshape(**last, inputs=(sums,)),
    ]


def shifts_into_look_ups(operations: list[ir.Operation]) -> list[ir.Operation]:
    """An affine map behind an activation becomes part of its table, if a later step pads what it gives: zeros are then the module's zeros.

    Averages without padding and new shapes of the same channels may lie between the two.
    """
    needed = {name for origins in padded_shifts(operations).values() for name in origins}
    by_name = {operation.name: operation for operation in operations}
    result: list[ir.Operation] = []
    for operation in operations:
        between: list[ir.Operation] = []
        source = by_name.get(operation.inputs[0])
        while source is not None and _commutes(source, by_name):
            between.insert(0, source)
            source = by_name.get(source.inputs[0])
        if not (
            isinstance(operation, ir.Affine) and operation.name in needed and isinstance(source, ir.ReLU | ir.LookUp)
        ):
            result.append(operation)
            continue
        chain = [behind(source, operation), *between]
        for number, step in enumerate(chain):
            last = step is chain[-1]
            result.append(
                replace(
                    step,
                    name=operation.name if last else f"{operation.name}_step{number}",
                    inputs=(result[-1].name,) if number else source.inputs,
                    computes=operation.computes if last else None,
                )
            )
    return result


def _commutes(operation: ir.Operation, by_name: dict[str, ir.Operation]) -> bool:
    """Whether an affine map behind it is the same before it."""
    if isinstance(operation, ir.AvgPool2d):
        return not any(operation.padding)
    source = by_name.get(operation.inputs[0])
    kept = source is not None and source.shape[:1] == operation.shape[:1]
    return isinstance(operation, ir.Reshape | ir.Flatten) and kept


def padded_shifts(operations: list[ir.Operation], *, moved: bool = False) -> dict[str, set[str]]:
    """By step that pads with zeros: the affine maps after which a zero of the circuit is not the module's zero there.

    Args:
        operations: in order.
        moved: whether the input's integer 0 stands for another number than 0; IMAGE is then one of them.
    """
    origins: dict[str, set[str]] = {IMAGE: {IMAGE} if moved else set()}
    found: dict[str, set[str]] = {}
    for operation in operations:
        own = set().union(*(origins[name] for name in operation.inputs))
        pads = any(getattr(operation, "padding", ())) or (
            isinstance(operation, ir.Gather) and bool((operation.index < 0).any())
        )
        if own and pads and not isinstance(operation, ir.MaxPool2d):
            found[operation.name] = own
        if isinstance(operation, ir.Conv2d | ir.Linear | ir.Activation):
            own = set()
        elif isinstance(operation, ir.Affine) and bool(operation.shift.any()):
            own = own | {operation.name}
        origins[operation.name] = own
    return found
