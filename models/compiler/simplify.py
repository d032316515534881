"""Bring a user's operations into the form that is trained and exported: batch norms folded, pools before activations.

What remains are convolutions and dense layers that read levels (the input, or results of activations), sums, joins, places, pools,
activations, and affine maps with positive scales, which cost nothing. Whatever does not fit is a finding.
"""

from dataclasses import replace
from math import prod

import torch

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.affine import (
    PASSIVE,
    affine_before_reshapes,
    fold_affine,
    one_tap,
    padded_shifts,
    read_by_linear,
    scaled,
    shifts_into_look_ups,
    signs_into_convolutions,
)
from ciphershift.models.compiler.compose import compose_moves, without_idle_moves
from ciphershift.models.compiler.crelu import apart_where_pooled, both_signs
from ciphershift.models.compiler.followers import bytes_of
from ciphershift.models.compiler.head import with_one_head
from ciphershift.models.compiler.merge import merged_linear
from ciphershift.models.compiler.pointwise import functions_of_one_number
from ciphershift.models.compiler.products import carry_levels, products
from ciphershift.models.compiler.rewrite import inserted_after, readers, replaced
from ciphershift.models.compiler.unsupported import PRODUCT

SHIFTED = "pads with zeros after a shift (a batch norm, or a constant that is added)"
NORMALIZED = (
    "leave the normalization of the input to convert, with the mean as the origin: inputs=Inputs(encoding=fit_encoding(data, origin=mean), "
    "mean=mean, std=std), or --mean and --std"
)


def simplify(traced: ir.TraceResult, input_shape: Shape, *, moved: bool = False) -> ir.TraceResult:
    """The same network in that form, with all findings, one of them if anything goes wrong; ``traced`` is not changed.

    Args:
        traced: as it was read.
        input_shape: of one sample.
        moved: whether the input's integer 0 stands for another number than 0.
    """
    try:
        return _simplified(traced, input_shape, moved=moved)
    except Exception as error:
        if traced.findings:  # what stands in for an unsupported step may have another shape
            return traced
        problem = f"cannot be brought into the form that is evaluated ({type(error).__name__}: {error})"
        instead = "leave out half of its steps at a time to find the one, write it in another way, and report it"
        return replace(traced, findings=[ir.Finding(place="the module", problem=problem, instead=instead)])


def _simplified(traced: ir.TraceResult, input_shape: Shape, *, moved: bool) -> ir.TraceResult:
    """The same, where nothing goes wrong."""
    if not traced.operations:
        return traced
    if not traced.findings:
        traced = with_one_head(traced, input_shape)
    operations = _without_unused(_without_identity(_without_zero_terms(traced.operations)))
    operations = _without_unused(both_signs(apart_where_pooled(operations)))
    operations = products(functions_of_one_number(operations, input_shape))
    operations = affine_before_reshapes(operations, input_shape)
    operations = without_idle_moves(compose_moves(_without_unused(operations), input_shape), input_shape)
    operations = _without_unused(_without_identity(operations))
    for change in (
        _merge_sums,
        fold_affine,
        signs_into_convolutions,
        _merge_linear,
        _terms_and_look_ups,
        _activations_before_moves,
        _pools_before_joins,
        _pools_before_activations,
        shifts_into_look_ups,
        _without_unused,
        _as_sums,
    ):
        operations = change(operations)
    # What stands in for an unsupported step would only raise findings that vanish with it.
    findings = traced.findings or _misfits(operations, moved)
    return replace(traced, operations=operations, findings=findings)


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


def _without_zero_terms(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Sums without terms that are always zero, as the bias of a recurrent layer may be: such a layer has no scale."""
    by_name = {operation.name: operation for operation in operations}
    result: list[ir.Operation] = []
    for o in operations:
        if isinstance(o, ir.Add):
            terms = [by_name.get(name) for name in o.inputs]
            zero = [isinstance(t, ir.Conv2d | ir.Linear) and not t.weight.any() and not t.bias.any() for t in terms]
            kept = tuple(name for name, nothing in zip(o.inputs, zero, strict=True) if not nothing)
            if len(kept) == 1:
                o = ir.Identity(name=o.name, place=o.place, inputs=kept, shape=o.shape)
            elif kept:
                o = replace(o, inputs=kept)
        result.append(o)
    return result


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


def _terms_and_look_ups(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Both of the following, until nothing changes: a look-up makes levels of sums, a term's own layer makes sums of levels."""
    count = 0
    while count != len(operations):
        count = len(operations)
        operations = _free_terms(_look_up_between(operations))
    return operations


def _free_terms(operations: list[ir.Operation]) -> list[ir.Operation]:
    """Terms of a sum whose scale cannot be chosen get a linear layer of their own: levels one tap, scaled sums the layer that gives them.

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
            sums = not all(levels[n] for n in fixed)  # whose unit no activation's is a power of two times
            for number, name in enumerate(dict.fromkeys(fixed)) if len(set(fixed)) > 1 else ():
                own = {"name": f"{operation.name}_term{number}", "place": operation.place, "computes": None}
                source = by_name.get(name)
                before = by_name.get(source.inputs[0]) if isinstance(source, ir.Affine) else None
                if levels[name] and (sums or not _has_power_of_two(source, by_name)):
                    ones = torch.ones(operation.shape[0])
                    tap = {"inputs": (name,), "shape": operation.shape, "scale": ones, "shift": 0 * ones}
                    made = one_tap(ir.Affine(**own, **tap))  # type: ignore[arg-type]
                elif isinstance(source, ir.Affine) and isinstance(before, ir.Conv2d | ir.Linear):
                    made = [replace(scaled(before, source), **own)]  # type: ignore[arg-type]
                else:
                    continue
                result += made
                inputs = tuple(made[-1].name if n == name else n for n in operation.inputs)
                operation = replace(operation, inputs=inputs)
        result.append(operation)
    return result


def _as_sums(operations: list[ir.Operation]) -> list[ir.Operation]:
    """A linear layer that a function reads is a sum of one term, if elsewhere the same function reads other terms beside the same weights.

    So is the first step of a gated layer without biases, whose state is zero (models.compiler.followers).
    """
    counts, by_name = readers(operations), {operation.name: operation for operation in operations}
    read = [
        (o, value)
        for o in operations
        if isinstance(o, ir.LookUp) and counts[o.inputs[0]] == 1 and (value := by_name.get(o.inputs[0]))
    ]

    def layers(names: tuple[str, ...]) -> list[ir.Conv2d | ir.Linear]:
        return [t for name in names if isinstance(t := by_name.get(name), ir.Conv2d | ir.Linear) and t.source]

    beside = {
        (bytes_of(o), term.source)
        for o, value in read
        if isinstance(value, ir.Add) and len(layers(value.inputs)) < len(value.inputs)
        for term in layers(value.inputs)
    }
    for o, value in read if beside else ():
        if any((bytes_of(o), layer.source) in beside for layer in layers((value.name,))):
            add = ir.Add(name=f"{value.name}_alone", place=o.place, inputs=(value.name,), shape=value.shape)
            operations = inserted_after(operations, value, add)
    return operations


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
            isinstance(ramp, ir.ReLU | ir.LookUp)
            and isinstance(move, ir.Gather | ir.Reshape)
            and counts[move.name] == 1
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


def _pools_before_joins(operations: list[ir.Operation]) -> list[ir.Operation]:
    """A max-pool of joined channels is one of each part, and may go on before the part's activation."""
    result: list[ir.Operation] = []
    counts, by_name = readers(operations), {operation.name: operation for operation in operations}
    for pool in operations:
        joined = by_name.get(pool.inputs[0]) if isinstance(pool, ir.MaxPool2d) else None
        if not isinstance(joined, ir.Concat) or counts[joined.name] > 1 or len(set(joined.inputs)) < len(joined.inputs):
            result.append(pool)
            continue
        parts = [
            replace(pool, name=f"{pool.name}_{name}", inputs=(name,), shape=(channels, *pool.shape[1:]), computes=None)
            for name in joined.inputs
            if (channels := _channels(name, by_name, joined))
        ]
        names = tuple(part.name for part in parts)
        result = [operation for operation in result if operation is not joined]
        result += [*parts, replace(joined, name=pool.name, inputs=names, shape=pool.shape, computes=pool.computes)]
        by_name |= {operation.name: operation for operation in (*parts, result[-1])}
    return result


def _channels(name: str, by_name: dict[str, ir.Operation], joined: ir.Concat) -> int:
    """Of one part of a join; the input's are those that are left."""
    if name in by_name:
        return by_name[name].shape[0]
    others = sum(by_name[other].shape[0] for other in joined.inputs if other in by_name)
    return joined.shape[0] - others


def _pools_before_activations(operations: list[ir.Operation]) -> list[ir.Operation]:
    """A max-pool right after an activation that rises changes places with it: the same result, and fewer values to look up."""
    changed = True
    while changed:
        changed = False
        counts = readers(operations)
        by_name = {operation.name: operation for operation in operations}
        for pool in operations:
            ramp = by_name.get(pool.inputs[0])
            if not (
                isinstance(pool, ir.MaxPool2d) and isinstance(ramp, ir.ReLU | ir.LookUp) and counts[ramp.name] == 1
            ):
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


def _of_input(operation: ir.Operation, by_name: dict[str, ir.Operation]) -> bool:
    """Whether nothing but moves and affine maps lies between the input and this."""
    found = all(name == IMAGE or _of_input(by_name[name], by_name) for name in operation.inputs)
    return isinstance(operation, PASSIVE) and found


def _misfits(operations: list[ir.Operation], moved: bool) -> list[ir.Finding]:
    """What the form above does not allow."""
    findings: list[ir.Finding] = []
    padded, by_name = padded_shifts(operations, moved=moved), {operation.name: operation for operation in operations}

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
        if shifts := padded.get(operation.name):
            of_input = all(name == IMAGE or _of_input(by_name[name], by_name) for name in shifts)
            note(operation, SHIFTED, NORMALIZED if of_input else "pad before the shift, or shift behind this step")
        turned = isinstance(operation, ir.Affine) and operation.scale.min() <= 0
        if turned and not read_by_linear(operation, operations):
            note(operation, "turns sums around that another step reads, too", "put it right after the convolution")
    if not isinstance(operations[-1], ir.Linear):
        note(operations[-1], "is the last step", "end in nn.Linear: the logits leave without a look-up")
    pools = any(isinstance(operation, ir.MaxPool2d) for operation in operations)
    if pools and not any(isinstance(operation, ir.Activation) for operation in operations):
        note(operations[-1], "has max-pools, and no activation, before it", "add a hidden layer with nn.ReLU")
    return findings
