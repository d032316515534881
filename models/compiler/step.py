"""One call of torch as the readers of models.compiler.operators see it, and what they answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ciphershift.he_layers.layers import Shape
from ciphershift.models.compiler import ir

PARTS = "abcdefghijkl"
"""Suffixes of the operations of one call but the last."""


class UnsupportedStepError(Exception):
    """A step cannot be an operation; says what is wrong and what to use instead. Stays inside models.compiler."""

    def __init__(self, problem: str, instead: str) -> None:
        super().__init__(problem)
        self.problem, self.instead = problem, instead
        self.place = "the module"


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A result that depends on the input: name of the operation that has it, and shape for one sample."""

    name: str
    shape: Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Postponed:
    """Values at places where the batch is not the first axis, until a later step brings it back there.

    Attributes:
        values: that are moved.
        move: their tensors, [B, ...] each, as the result's.
    """

    values: tuple[Value, ...]
    move: Callable[[tuple[Tensor, ...]], Tensor]


@dataclass(kw_only=True)
class Call:
    """One call of a function of torch.

    Attributes:
        name: for the operation that has its result.
        function: its name in torch's operator set.
        place: where the user finds it.
        shape: of the result for one sample.
        run: the function itself.
        arguments: values, constants (tensors) and options in the function's order; ``options`` those by name.
        item: which of several results is meant.
        written: operations so far.
    """

    name: str
    function: str
    place: str
    shape: Shape
    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    item: int | None = None

    def __post_init__(self) -> None:
        self.written: list[ir.Operation] = []

    def add(self, kind: type[ir.Operation], *inputs: Value, shape: Shape, **fields: Any) -> Value:
        """Writes an operation down; returns its value."""
        name = self.name if not self.written else f"{self.name}_{PARTS[len(self.written) - 1]}"
        self.written.append(
            kind(name=name, place=self.place, inputs=tuple(i.name for i in inputs), shape=shape, **fields)
        )
        return Value(name=name, shape=shape)

    def affine(self, x: Value, scale: Tensor | float, shift: Tensor | float) -> Value:
        """Each channel times ``scale`` plus ``shift``."""
        ones = torch.ones(x.shape[0])
        return self.add(ir.Affine, x, shape=x.shape, scale=(scale * ones).float(), shift=(shift * ones).float())

    def reshape(self, x: Value, shape: Shape) -> Value:
        """The same values in C order under another shape."""
        if shape == x.shape:
            return x
        return self.add(ir.Flatten if len(shape) == 1 else ir.Reshape, x, shape=shape)

    def gather(self, inputs: tuple[Value, ...], index: Tensor, shape: Shape) -> Value:
        """Values at new places; ``index`` int64 [prod(shape)] into all inputs one after the other, -1 for zero."""
        size = sum(prod(i.shape) for i in inputs)
        if index.numel() == size and torch.equal(index, torch.arange(size)):
            if len(inputs) == 1:
                return self.reshape(inputs[0], shape)
            if len({i.shape[1:] for i in inputs}) == 1 and shape[1:] == inputs[0].shape[1:]:
                return self.add(ir.Concat, *inputs, shape=shape)
        return self.add(ir.Gather, *inputs, shape=shape, index=index)

    def finish(self, result: Value) -> tuple[tuple[ir.Operation, ...], str]:
        """All operations of the call; the last one, which has the call's name, has its value."""
        if not self.written or self.written[-1].name != result.name:
            self.add(ir.Identity, result, shape=result.shape)
        count = len(self.written)
        names = {o.name: f"{self.name}_{PARTS[i]}" if i < count - 1 else self.name for i, o in enumerate(self.written)}
        operations = tuple(
            replace(
                o,
                name=names[o.name],
                inputs=tuple(names.get(name, name) for name in o.inputs),
                computes=self.name if o is self.written[-1] else None,
            )
            for o in self.written
        )
        return operations, self.name


def pair(value: Any) -> ir.Pair:
    """One number for height and width, or one for each."""
    if isinstance(value, tuple | list):
        return int(value[0]), int(value[-1])
    return int(value), int(value)
