"""Small changes of a list of operations."""

from collections import Counter
from dataclasses import replace

from ciphershift.models.compiler import ir


def readers(operations: list[ir.Operation]) -> Counter[str]:
    """How often each result is read; the last one's once more, by the client."""
    counts = Counter(name for operation in operations for name in operation.inputs)
    counts[operations[-1].name] += 1
    return counts


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
