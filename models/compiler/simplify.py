"""Bring a user's operations into the form that is trained and exported: batch norms folded, pools before activations.

What remains are convolutions and dense layers that read levels (the input, or results of activations), sums, joins, places, pools,
activations, and affine maps with positive scales, which cost nothing. Whatever does not fit is a finding.
"""

from collections import Counter
from dataclasses import replace
from math import prod

import torch

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.compose import compose_moves, without_idle_moves
from ciphershift.models.compiler.head import with_one_head
from ciphershift.models.compiler.merge import merged_linear
from ciphershift.models.compiler.pointwise import functions_of_one_number
from ciphershift.models.compiler.products import carry_levels, products
from ciphershift.models.compiler.unsupported import PRODUCT

PASSIVE = (ir.Affine, ir.Reshape, ir.Flatten, ir.Gather, ir.Concat, ir.ChannelShuffle, ir.AvgPool2d)
"""Read sums where their source has sums, levels where it has levels."""


def simplify(traced: ir.TraceResult, input_shape: Shape, *, moved: bool = False) -> ir.TraceResult:
    """The same network in that form, with all findings; ``traced`` is not changed.

    Args:
        traced: as it was read.
        input_shape: of one sample.
        moved: whether the input's integer 0 stands for another number than 0.
    """
    if not traced.operations:
        return traced
    if not traced.findings:
        traced = with_one_head(traced, input_shape)
    operations = _without_unused(_without_identity(traced.operations))
    operations = products(functions_of_one_number(operations, input_shape))
    operations = without_idle_moves(compose_moves(_without_unused(operations), input_shape), input_shape)
    operations = _without_unused(_without_identity(operations))
    for change in (
        _merge_sums,
        _fold_affine,
        _signs_into_convolutions,
        _free_terms,
        _merge_linear,
        _look_up_between,
        _activations_before_moves,
        _pools_before_activations,
    ):
        operations = change(operations)
    # What stands in for an unsupported step would only raise findings that vanish with it.
    findings = traced.findings or _misfits(operations, moved)
    return replace(traced, operations=operations, findings=findings)


def readers(operations: list[ir.Operation]) -> Counter[str]:
    """How often each result is read; the last one's once more, by the client."""
    counts = Counter(name for operation in operations for name in operation.inputs)
    counts[operations[-1].name] += 1
    return counts


def _without_identity(operations: list[ir.Operation]) -> list[ir.Operation]:
    stands_for: dict[str, str] = {}
    kept: list[ir.Operation] = []
    for operation in operations:
        inputs = tuple(stands_for.get(name, name) for name in operation.inputs)
        if isinstance(operation, ir.Identity):
            stands_for[operation.name] = inputs[0]
        else:
            kept.append(replace(operation, inputs=inputs))
    return kept or operations


def _without_unused(operations: list[ir.Operation]) -> list[ir.Operation]:
    needed = {operations[-1].name}
    for operation in reversed(operations):
        if operation.name in needed:
            needed |= set(operation.inputs)
    return [operation for operation in operations if operation.name in needed]


def _merge_sums(operations: list[ir.Operation]) -> list[ir.Operation]:
    """A sum that only another sum reads becomes part of it."""
    counts, by_name = readers(operations), {operation.name: operation for operation in operations}
    merged: dict[str, tuple[str, ...]] = {}
    result: list[ir.Operation] = []
    for operation in operations:
        if isinstance(operation, ir.Add):
            inputs = tuple(term for name in operation.inputs for term in merged.get(name, (name,)))
            operation = by_name[operation.name] = replace(operation, inputs=inputs)
            reader = [o for o in operations if operation.name in o.inputs]
            if counts[operation.name] == 1 and reader and isinstance(reader[0], ir.Add):
                merged[operation.name] = inputs
                continue
        result.append(operation)
    return result


def _fold_affine(operations: list[ir.Operation]) -> list[ir.Operation]:
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
                scale = affine.scale.reshape(-1, *[1] * (before.weight.dim() - 1))
                folded: ir.Operation = replace(
                    before,
                    weight=before.weight * scale,
                    bias=before.bias * affine.scale + affine.shift,
                    computes=affine.computes,
                )
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


def replaced(operations: list[ir.Operation], new: dict[str, ir.Operation], *, drop: ir.Operation) -> list[ir.Operation]:
    """The operations with some exchanged, and with ``drop`` left out: its readers read what it read."""
    result = [new.get(operation.name, operation) for operation in operations if operation.name != drop.name]
    return [
        replace(o, inputs=tuple(drop.inputs[0] if name == drop.name else name for name in o.inputs)) for o in result
    ]


def inserted_after(operations: list[ir.Operation], place: ir.Operation, new: ir.Operation) -> list[ir.Operation]:
    """The operations with ``new``, which reads ``place``, right after it; every reader of ``place`` now reads ``new``."""
    result: list[ir.Operation] = []
    for operation in operations:
        if operation.name == place.name:
            result += [operation, new]
        else:
            inputs = tuple(new.name if name == place.name else name for name in operation.inputs)
            result.append(replace(operation, inputs=inputs))
    return result


def _signs_into_convolutions(operations: list[ir.Operation]) -> list[ir.Operation]:
    """An affine map that does not rise becomes a convolution of one tap for each channel, unless only linear layers read it."""
    return [
        _one_tap(o) if isinstance(o, ir.Affine) and o.scale.min() <= 0 and not _read_by_linear(o, operations) else o
        for o in operations
    ]


def _read_by_linear(operation: ir.Operation, operations: list[ir.Operation]) -> bool:
    """Whether all readers, behind operations that only move values, are linear layers, which take any sign."""
    found = [o for o in operations if operation.name in o.inputs]
    return (
        bool(found)
        and bool((getattr(operation, "scale", torch.ones(1)) != 0).all())
        and all(
            isinstance(o, ir.Conv2d | ir.Linear) or (isinstance(o, PASSIVE) and _read_by_linear(o, operations))
            for o in found
        )
    )


def _one_tap(affine: ir.Affine) -> ir.Conv2d | ir.Linear:
    """The same map as a linear layer without sums over channels."""
    base = {
        "name": affine.name,
        "place": affine.place,
        "inputs": affine.inputs,
        "shape": affine.shape,
        "computes": affine.computes,
    }
    if len(affine.shape) == 1:
        return ir.Linear(**base, weight=torch.diag(affine.scale), bias=affine.shift)  # type: ignore[arg-type]
    return ir.Conv2d(**base, weight=affine.scale[:, None, None, None], bias=affine.shift, groups=len(affine.scale))  # type: ignore[arg-type]


def _free_terms(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Terms of a sum whose scale cannot be chosen get a convolution of one tap, if they are levels.

    Two terms have scales of their own if neither is a linear layer that only this sum reads. Those of activations are powers of two times
    each other; those of the input, of averages, of affine maps and of a linear layer that others read, too, are not.
    """
    counts, levels = readers(operations), carry_levels(operations)
    by_name = {operation.name: operation for operation in operations}
    result: list[ir.Operation] = []
    for operation in operations:
        if isinstance(operation, ir.Add):
            fixed = [
                n
                for n in operation.inputs
                if not (counts[n] == 1 and isinstance(by_name.get(n), ir.Conv2d | ir.Linear))
            ]
            for number, name in enumerate(dict.fromkeys(fixed)) if len(set(fixed)) > 1 else ():
                sums = not all(levels[n] for n in fixed)  # whose unit no activation's is a power of two times
                if levels[name] and (sums or not _has_power_of_two(by_name.get(name), by_name)):
                    ones = torch.ones(operation.shape[0])
                    term = ir.Affine(
                        name=f"{operation.name}_term{number}",
                        place=operation.place,
                        inputs=(name,),
                        shape=operation.shape,
                        scale=ones,
                        shift=ones * 0,
                    )
                    result.append(_one_tap(term))
                    inputs = tuple(term.name if n == name else n for n in operation.inputs)
                    operation = replace(operation, inputs=inputs)
        result.append(operation)
    return result


def _has_power_of_two(operation: ir.Operation | None, by_name: dict[str, ir.Operation]) -> bool:
    """Whether a value's unit may be made a power of two: that of an activation, also in a sum, behind a max-pool or at new places."""
    if isinstance(
        operation, ir.Add | ir.MaxPool2d | ir.Gather | ir.Concat | ir.ChannelShuffle | ir.Reshape | ir.Flatten
    ):
        return all(_has_power_of_two(by_name.get(name), by_name) for name in operation.inputs)
    return isinstance(operation, ir.Activation)


def _merge_linear(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Two linear layers in a row become one, where that is exact and no sum of the first is read elsewhere."""
    changed = True
    while changed:
        changed = False
        counts = readers(operations)
        by_name = {operation.name: operation for operation in operations}
        for second in operations:
            first = by_name.get(second.inputs[0])
            if not (isinstance(second, ir.Conv2d | ir.Linear) and isinstance(first, ir.Conv2d | ir.Linear)):
                continue
            one = merged_linear(first, second) if counts[first.name] == 1 else None
            if one is not None:
                operations = replaced(operations, {second.name: one}, drop=first)
                changed = True
                break
    return operations


def _look_up_between(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Sums that another linear layer reads, as those of MobileNet's linear bottlenecks, become levels: a look-up that changes nothing."""
    sums: dict[str, bool] = {IMAGE: False}
    for operation in operations:
        linear = isinstance(operation, ir.Conv2d | ir.Linear)
        if linear and any(sums[name] for name in operation.inputs):
            (name,) = operation.inputs
            source = next(o for o in operations if o.name == name)
            kept = ir.LookUp(
                name=f"{name}_kept",
                place=source.place,
                inputs=(name,),
                shape=source.shape,
                function=lambda x: x,
                rises=True,
            )
            return _look_up_between(inserted_after(operations, source, kept))
        sums[operation.name] = linear or (
            not isinstance(operation, ir.Activation) and any(sums[name] for name in operation.inputs)
        )
    return operations


def _activations_before_moves(operations: list[ir.Operation]) -> list[ir.Operation]:
    """An activation right after a step that moves values changes places with it, if there are not more values to look up then.

    The channels of its tables are then those of the linear layer, each with its own bias, also where places of several are mixed.
    """
    counts, shapes = readers(operations), {operation.name: operation.shape for operation in operations}
    by_name = {operation.name: operation for operation in operations}
    new: dict[str, ir.Operation] = {}
    for ramp in operations:
        move = by_name.get(ramp.inputs[0])
        if not (
            isinstance(ramp, ir.Activation) and isinstance(move, ir.Gather | ir.Reshape) and counts[move.name] == 1
        ):
            continue
        if isinstance(ramp, ir.LookUp) and ramp.by_channel:
            continue
        source = shapes.get(move.inputs[0])
        zeros = isinstance(move, ir.Gather) and bool((move.index < 0).any())
        if source is None or len(move.inputs) > 1 or zeros or prod(source) > prod(move.shape):
            continue
        new[move.name] = replace(ramp, name=move.name, inputs=move.inputs, shape=source, computes=None)
        new[ramp.name] = replace(move, name=ramp.name, inputs=(move.name,), computes=ramp.computes)
    return [new.get(operation.name, operation) for operation in operations]


def _pools_before_activations(operations: list[ir.Operation]) -> list[ir.Operation]:
    """A max-pool right after an activation that rises changes places with it: the same result, and fewer values to look up."""
    changed = True
    while changed:
        changed = False
        counts = readers(operations)
        by_name = {operation.name: operation for operation in operations}
        for pool in operations:
            ramp = by_name.get(pool.inputs[0])
            if not (isinstance(pool, ir.MaxPool2d) and isinstance(ramp, ir.Activation) and counts[ramp.name] == 1):
                continue
            if isinstance(ramp, ir.LookUp) and not ramp.rises:
                continue
            moved = replace(pool, inputs=ramp.inputs, computes=None)
            operations = replaced([o for o in operations if o is not ramp], {pool.name: moved}, drop=ramp)
            later = replace(ramp, inputs=(pool.name,), shape=pool.shape, computes=pool.computes)
            operations = inserted_after(operations, moved, later)
            changed = True
            break
    return operations


def _misfits(operations: list[ir.Operation], input_moved: bool) -> list[ir.Finding]:
    """What the form above does not allow."""
    findings: list[ir.Finding] = []
    moved: dict[str, bool] = {IMAGE: input_moved}  # whether a zero of the circuit is not the module's zero

    def note(operation: ir.Operation, problem: str, instead: str) -> None:
        findings.append(ir.Finding(place=operation.place, problem=problem, instead=instead))

    for operation in operations:
        if isinstance(operation, ir.Output):
            note(
                operation,
                f"{operation.function} is not supported",
                "only at the end, right behind nn.Linear, where the client does it",
            )
        if isinstance(operation, ir.Pointwise):
            note(operation, "is a function of several encrypted values, which is neither a sum nor a product", PRODUCT)
        if len(operation.shape) > 3:
            note(operation, f"gives a result of shape {operation.shape}", "use one to three axes besides the batch")
        is_moved = any(moved[name] for name in operation.inputs)
        pads = any(getattr(operation, "padding", ())) or (
            isinstance(operation, ir.Gather) and bool((operation.index < 0).any())
        )
        if is_moved and pads and not isinstance(operation, ir.MaxPool2d):
            note(
                operation,
                "pads with zeros after a shift (a batch norm, or a constant that is added)",
                "use padding before the shift, or put the shift after the layer",
            )
        if isinstance(operation, ir.Conv2d | ir.Linear | ir.Activation):
            is_moved = False
        elif isinstance(operation, ir.Affine):
            if operation.scale.min() <= 0 and not _read_by_linear(operation, operations):
                note(operation, "turns sums around that another step reads, too", "put it right after the convolution")
            is_moved = bool(operation.shift.any()) or is_moved
        moved[operation.name] = is_moved
    if not isinstance(operations[-1], ir.Linear):
        note(operations[-1], "is the last step", "end in nn.Linear: the logits leave without a look-up")
    if not any(isinstance(operation, ir.Activation) for operation in operations):
        note(
            operations[-1],
            "has no activation before it",
            "add a hidden layer with nn.ReLU: the logits are packed from look-ups",
        )
    return findings
