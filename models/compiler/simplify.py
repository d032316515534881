"""Bring a user's operations into the form that is trained and exported: batch norms folded, pools before ramps, nothing without effect.

What remains are convolutions and dense layers that read levels (the image, or results of ramps), sums, joins, pools, and ramps that may
carry an affine map of their input. Whatever does not fit is a finding.
"""

from collections import Counter
from dataclasses import replace

from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir


def simplify(traced: ir.TraceResult) -> ir.TraceResult:
    """The same network in that form, with all findings; ``traced`` is not changed."""
    if not traced.operations:
        return traced
    operations = _without_same(traced.operations)
    operations = _merge_sums(operations)
    operations = _fold_affine(operations)
    operations = _pools_before_ramps(operations)
    # What stands in for an unsupported step would only raise findings that vanish with it.
    return ir.TraceResult(operations=operations, findings=traced.findings or _misfits(operations))


def readers(operations: list[ir.Operation]) -> Counter[str]:
    """How often each result is read; the last one's once more, by the client."""
    counts = Counter(name for operation in operations for name in operation.inputs)
    counts[operations[-1].name] += 1
    return counts


def _without_same(operations: list[ir.Operation]) -> list[ir.Operation]:
    stands_for: dict[str, str] = {}
    kept: list[ir.Operation] = []
    for operation in operations:
        inputs = tuple(stands_for.get(name, name) for name in operation.inputs)
        if isinstance(operation, ir.Identity) or (
            isinstance(operation, ir.Flatten) and len(_shape_of(inputs[0], kept, operation)) == 1
        ):
            stands_for[operation.name] = inputs[0]
        else:
            kept.append(replace(operation, inputs=inputs))
    return kept


def _shape_of(name: str, operations: list[ir.Operation], reader: ir.Operation) -> tuple[int, ...]:
    """Shape of a result; an image, which has no operation, is never flat."""
    return next((o.shape for o in operations if o.name == name), (*reader.shape, 1, 1))


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
    """A batch norm goes into the linear layer before it, or into the ramp after it (also through a max-pool, if it rises)."""
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
                folded = replace(before, weight=before.weight * scale, bias=before.bias * affine.scale + affine.shift)
                operations = _replaced(operations, {before.name: folded}, drop=affine)
            elif (
                affine.scale.min() > 0 and len(after) == 1 and isinstance(after[0], ir.ReLU) and after[0].affine is None
            ):
                operations = _replaced(operations, {after[0].name: replace(after[0], affine=affine)}, drop=affine)
            elif affine.scale.min() > 0 and len(after) == 1 and isinstance(after[0], ir.MaxPool2d):
                pool = replace(after[0], inputs=affine.inputs)
                moved = replace(affine, inputs=(pool.name,), shape=pool.shape)
                operations = _replaced(operations, {pool.name: pool}, drop=affine)
                operations = _inserted_after(operations, pool, moved)
            else:
                continue
            changed = True
            break
    return operations


def _replaced(
    operations: list[ir.Operation], new: dict[str, ir.Operation], *, drop: ir.Operation
) -> list[ir.Operation]:
    """The operations with some exchanged, and with ``drop`` left out: its readers read what it read."""
    result = [new.get(operation.name, operation) for operation in operations if operation.name != drop.name]
    return [
        replace(o, inputs=tuple(drop.inputs[0] if name == drop.name else name for name in o.inputs)) for o in result
    ]


def _inserted_after(operations: list[ir.Operation], place: ir.Operation, new: ir.Operation) -> list[ir.Operation]:
    """The operations with ``new``, which reads ``place``, right after it; every reader of ``place`` now reads ``new``."""
    result: list[ir.Operation] = []
    for operation in operations:
        if operation.name == place.name:
            result += [operation, new]
        else:
            inputs = tuple(new.name if name == place.name else name for name in operation.inputs)
            result.append(replace(operation, inputs=inputs))
    return result


def _pools_before_ramps(operations: list[ir.Operation]) -> list[ir.Operation]:
    """A max-pool right after a ramp changes places with it: the result is the same, and the ramp has fewer values to look up."""
    changed = True
    while changed:
        changed = False
        counts = readers(operations)
        by_name = {operation.name: operation for operation in operations}
        for pool in operations:
            ramp = by_name.get(pool.inputs[0])
            if not (isinstance(pool, ir.MaxPool2d) and isinstance(ramp, ir.ReLU) and counts[ramp.name] == 1):
                continue
            moved = replace(pool, inputs=ramp.inputs)
            operations = _replaced([o for o in operations if o is not ramp], {pool.name: moved}, drop=ramp)
            operations = _inserted_after(operations, moved, replace(ramp, inputs=(pool.name,), shape=pool.shape))
            changed = True
            break
    return operations


def _misfits(operations: list[ir.Operation]) -> list[ir.Finding]:
    """What the form above does not allow."""
    findings: list[ir.Finding] = []
    carries_sums: dict[str, bool] = {IMAGE: False}

    def note(operation: ir.Operation, problem: str, instead: str) -> None:
        findings.append(ir.Finding(place=operation.place, problem=problem, instead=instead))

    for operation in operations:
        sums = any(carries_sums[name] for name in operation.inputs)
        if isinstance(operation, ir.Conv2d | ir.Linear):
            if sums:
                note(
                    operation,
                    "reads the sums of another linear layer",
                    "put nn.ReLU or nn.Hardtanh between them, or make them one layer",
                )
            sums = True
        elif isinstance(operation, ir.ReLU):
            sums = False
        elif isinstance(operation, ir.Affine):
            problem = "is a batch norm that neither follows a linear layer nor leads to a ReLU"
            if bool((operation.scale <= 0).any()):
                problem += " with positive weights"
            note(operation, problem, "put it right after the convolution")
        carries_sums[operation.name] = sums
    if not isinstance(operations[-1], ir.Linear):
        note(operations[-1], "is the last step", "end in nn.Linear: the logits leave without a look-up")
    if not any(isinstance(operation, ir.ReLU) for operation in operations):
        note(
            operations[-1],
            "has no activation before it",
            "add a hidden layer with nn.ReLU: the logits are packed from look-ups",
        )
    return findings
