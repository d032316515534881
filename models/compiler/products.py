"""The product of two values as two look-ups: x * y = (x + y)^2 / 4 - (x - y)^2 / 4."""

from dataclasses import replace

import torch
from torch import Tensor

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir


def products(operations: list[ir.Operation]) -> list[ir.Operation]:
    """The operations, where products of two values are sums of squares; other functions of several values stay as they are."""
    by_name = {operation.name: operation for operation in operations}
    levels = carry_levels(operations)
    result: list[ir.Operation] = []
    for operation in operations:
        is_product = isinstance(operation, ir.Pointwise) and operation.torch_name == "mul"
        negated = _negated(operation, by_name, levels) if is_product else None
        result += [operation] if negated is None else _product(operation, *negated, by_name)
    return result


def carry_levels(operations: list[ir.Operation]) -> dict[str, bool]:
    """By name, whether a value is made of levels alone: the input, results of activations, and what only moves or adds them."""
    levels = {IMAGE: True}
    for operation in operations:
        levels[operation.name] = isinstance(operation, ir.Activation) or (
            not isinstance(operation, ir.Conv2d | ir.Linear) and all(levels[name] for name in operation.inputs)
        )
    return levels


def _negated(
    product: ir.Operation, by_name: dict[str, ir.Operation], levels: dict[str, bool]
) -> tuple[str, str, list[ir.Operation]] | None:
    """One factor, the other one, and for sums a copy of that one's linear layer with the negative of its results; none if impossible."""
    first, second = product.inputs
    for kept, turned in ((first, second), (second, first)):
        if levels[turned]:
            return kept, turned, []
    for kept, turned in ((first, second), (second, first)):
        source = by_name[turned]
        linear = by_name.get(source.inputs[0]) if isinstance(source, ir.Affine) else source
        if isinstance(linear, ir.Conv2d | ir.Linear):
            sign = -source.scale if isinstance(source, ir.Affine) else -torch.ones(linear.shape[0])
            shift = -source.shift if isinstance(source, ir.Affine) else torch.zeros(linear.shape[0])
            copy = replace(
                linear,
                name=f"{product.name}_opposite",
                computes=None,
                weight=linear.weight * sign.view(-1, *[1] * (linear.weight.dim() - 1)),
                bias=linear.bias * sign + shift,
            )
            return kept, turned, [copy]
    return None


def _opposite(product: ir.Operation, turned: str, by_name: dict[str, ir.Operation]) -> list[ir.Operation]:
    """Operations of which the last gives the negative of levels; of a sum that may scale its terms, the sum of negatives.

    Such a sum has linear layers, whose sums no other linear layer reads.
    """
    source, name = by_name.get(turned), f"{product.name}_opposite"
    if isinstance(source, ir.Add) and not _of_look_ups(source, by_name):
        parts = [_opposite(replace(product, name=f"{name}{i}"), term, by_name) for i, term in enumerate(source.inputs)]
        total = replace(source, name=name, inputs=tuple(part[-1].name for part in parts), computes=None)
        return [operation for part in parts for operation in part] + [total]
    if isinstance(source, ir.Affine) and bool((source.scale == -1).all()) and not source.shift.any():
        return [ir.Identity(name=name, place=product.place, inputs=source.inputs, shape=product.shape)]
    if isinstance(source, ir.Affine):
        return [replace(source, name=name, scale=-source.scale, shift=-source.shift, computes=None)]
    ones = torch.ones(product.shape[0])
    return [
        ir.Affine(name=name, place=product.place, inputs=(turned,), shape=product.shape, scale=-ones, shift=0 * ones)
    ]


def _of_look_ups(source: ir.Operation | None, by_name: dict[str, ir.Operation]) -> bool:
    """Whether a value is a sum of results of look-ups alone, so that no term of it gets a linear layer of its own."""
    if isinstance(source, ir.Add):
        return all(_of_look_ups(by_name.get(name), by_name) for name in source.inputs)
    return isinstance(source, ir.Activation) or (isinstance(source, ir.Pointwise) and source.torch_name == "mul")


def _product(
    product: ir.Operation, kept: str, turned: str, opposite: list[ir.Operation], by_name: dict[str, ir.Operation]
) -> list[ir.Operation]:
    """Sum and difference, their squares, and the sum of these; a series [C, L] is an image of one row meanwhile."""
    made: list[ir.Operation] = list(opposite)
    shape = product.shape if len(product.shape) != 2 else (product.shape[0], 1, product.shape[1])

    def add(kind: type[ir.Operation], what: str, *inputs: str, shape: Shape = shape, **fields: object) -> str:
        operation = kind(name=f"{product.name}_{what}", place=product.place, inputs=inputs, shape=shape, **fields)  # type: ignore[arg-type]
        made.append(operation)
        return operation.name

    if shape != product.shape:
        kept, turned = (add(ir.Reshape, f"row_{i}", name) for i, name in enumerate((kept, turned)))
    if not opposite:
        opposite = _opposite(replace(product, shape=shape), turned, by_name)
        made += opposite
    negative = opposite[-1].name
    total = add(ir.Add, "sum", kept, turned)
    difference = add(ir.Add, "difference", kept, negative)
    squares = (
        add(ir.LookUp, "square", total, function=_quarter_of_the_square),
        add(ir.LookUp, "square_of_difference", difference, function=lambda x: -_quarter_of_the_square(x)),
    )
    add(ir.Add, "product", *squares)
    if shape != product.shape:
        add(ir.Reshape, "back", made[-1].name, shape=product.shape)
    made[-1] = replace(made[-1], name=product.name, computes=product.computes)
    return made


def _quarter_of_the_square(x: Tensor) -> Tensor:
    return x * x / 4
