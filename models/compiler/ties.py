"""Which layers are one: those that use the same weights of the module, and the activations of their sums.

A network over time comes as one step after the other, each with the same weights of the module. Here these become one trainable layer,
with one scale, one table and one set of statistics for all steps. Layers are one only if everything that their integers depend on is the
same; any others stay apart, each with weights of its own. What is computed from their results is one, too, if it is the same at every step
(models.compiler.followers), as the products of an LSTM are.
"""

from collections import defaultdict
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.followers import ALIVE, bytes_of, followers, unfit
from ciphershift.models.compiler.inputs import Inputs
from ciphershift.models.compiler.rewrite import readers

Linear = ir.Conv2d | ir.Linear
SAME = 1e-5
"""Relative difference of biases that is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Use:
    """One use of weights: the linear layer, the sum that it is part of (or itself), all terms of it, and the activation that reads it."""

    linear: Linear
    sums: ir.Operation
    terms: tuple[Linear, ...]
    activation: ir.Activation


def ties(operations: list[ir.Operation], input_shape: Shape, inputs: Inputs) -> dict[str, str]:
    """By name of each linear layer, activation and sum that is one with others: the first of them, which is tied to itself.

    Args:
        operations: as they are simplified.
        input_shape: of one sample.
        inputs: what its integers stand for.
    """
    image, uses, apart = _image(input_shape, inputs), _uses(operations), set[str]()
    of_input = _of_input(operations, image)
    while True:
        classes = _classes(uses)
        found: dict[str, str] = {}
        wrong = _alone(uses, classes)
        if uses and not wrong:
            found = followers(operations, classes, of_input, apart)
            wrong = _unequal(uses, classes, _origins(operations, image, classes | found))
        if wrong:
            uses = {name: use for name, use in uses.items() if name not in wrong}
        elif wrong := unfit(operations, classes, of_input, found):
            apart |= wrong
        else:
            break
    members: dict[str, list[str]] = defaultdict(list)
    for operation in operations:
        number = found.get(operation.name)
        if operation.name in uses or (operation.name in classes and isinstance(operation, ir.Activation)):
            number = classes[operation.name]
        if number is not None:
            members[number].append(operation.name)
    return {name: names[0] for names in members.values() if len(names) > 1 for name in names}


def _uses(operations: list[ir.Operation]) -> dict[str, _Use]:
    """By name, all linear layers that feed an activation through a sum of linear layers alone, and whose channels all have weights."""
    counts, by_name = readers(operations), {operation.name: operation for operation in operations}
    reader = {name: operation for operation in operations for name in operation.inputs if counts[name] == 1}
    found: dict[str, _Use] = {}
    for operation in operations:
        if not isinstance(operation, Linear) or not operation.source or operation.name not in reader:
            continue
        after = reader[operation.name]
        sums = after if isinstance(after, ir.Add) else operation
        terms = [by_name.get(name) for name in sums.inputs] if sums is after else [operation]
        activation = reader.get(sums.name)
        linear = tuple(t for t in terms if isinstance(t, Linear) and t.source and counts[t.name] == 1)
        alive = [bool((w.amax(1) > ALIVE * w.max()).all()) for w in (t.weight.flatten(1).abs() for t in linear)]
        if isinstance(activation, ir.Activation) and len(linear) == len(terms) and all(alive):
            found[operation.name] = _Use(linear=operation, sums=sums, terms=linear, activation=activation)
    return found


def _classes(uses: dict[str, _Use]) -> dict[str, str]:
    """Classes of linear layers, sums and activations: all are one that any two uses of the same weights lead to."""
    number = {name: i for i, name in enumerate(uses)}
    sources: dict[int, list[str]] = defaultdict(list)
    for name, use in uses.items():
        sources[use.linear.source].append(name)
    groups = [*sources.values(), *([t.name for t in use.terms if t.name in uses] for use in uses.values())]
    changed = True
    while changed:
        changed = False
        for group in groups:
            least = min(number[name] for name in group)
            for name in group:
                changed, number[name] = changed or number[name] != least, least
    found: dict[str, str] = {}
    for name, use in uses.items():
        found[use.sums.name], found[use.activation.name] = f"{number[name]} sums", f"{number[name]} levels"
    return found | {name: f"{number[name]} {use.linear.source}" for name, use in uses.items()}


def _alone(uses: dict[str, _Use], classes: dict[str, str]) -> set[str]:
    """Uses of classes with one activation, or with terms that are in none or twice."""
    activations: dict[str, set[str]] = defaultdict(set)
    for use in uses.values():
        activations[classes[use.activation.name]].add(use.activation.name)
    wrong: set[str] = set()
    for use in uses.values():
        sources, number = {t.source for t in use.terms}, classes[use.activation.name]
        fits = len(sources) == len(use.terms) and all(t.name in uses for t in use.terms)
        if not fits or len(activations[number]) == 1:
            wrong.add(number)
    return _uses_of(uses, classes, wrong)


def _unequal(uses: dict[str, _Use], classes: dict[str, str], origins: dict[str, Tensor]) -> set[str]:
    """Uses of classes whose layers differ in more than their place."""
    wrong: set[str] = set()
    first: dict[str, _Use] = {}
    for name, use in uses.items():
        number = classes[use.activation.name]
        other, head = first.setdefault(classes[name], use), first.setdefault(number, use)
        same = _same_linear(use.linear, other.linear) and _same_origin(use.linear, other.linear, origins)
        if not (same and _same_activation(head, use)):
            wrong.add(number)
    return _uses_of(uses, classes, wrong)


def _uses_of(uses: dict[str, _Use], classes: dict[str, str], numbers: set[str]) -> set[str]:
    return {name for name, use in uses.items() if classes[use.activation.name] in numbers}


def _same_linear(a: Linear, b: Linear) -> bool:
    if type(a) is not type(b) or a.shape != b.shape or a.weight.shape != b.weight.shape:
        return False
    options = [getattr(a, key, None) == getattr(b, key, None) for key in ("stride", "padding", "groups")]
    return all(options) and bool(torch.equal(a.weight, b.weight))


def _same_origin(a: Linear, b: Linear, origins: dict[str, Tensor]) -> bool:
    return torch.equal(origins[a.inputs[0]], origins[b.inputs[0]])


def _same_activation(a: _Use, b: _Use) -> bool:
    """Whether both compute one function of sums with one bias."""
    first, second = a.activation, b.activation
    if type(first) is not type(second) or first.shape != second.shape:
        return False
    if isinstance(first, ir.ReLU) and isinstance(second, ir.ReLU):
        same = (first.low, first.high) == (second.low, second.high)
    elif isinstance(first, ir.CReLU) and isinstance(second, ir.CReLU):
        same = first.high == second.high
    else:
        assert isinstance(first, ir.LookUp) and isinstance(second, ir.LookUp), "an activation is a ramp or a function"
        same = first.by_channel == second.by_channel and bytes_of(first) == bytes_of(second)
    biases = [torch.stack([t.bias for t in use.terms]).sum(0) for use in (a, b)]
    scale = max(float(bias.abs().max()) for bias in biases)
    return same and float((biases[0] - biases[1]).abs().max()) <= SAME * scale


def _image(shape: Shape, inputs: Inputs) -> Tensor:
    """For each place of the input a number below zero: the same where its integers stand for the same."""
    scales = torch.stack(inputs.scale(shape[0]), dim=1)
    _, numbers = torch.unique(scales, dim=0, return_inverse=True)
    places: Tensor = (-2 - numbers).repeat_interleave(prod(shape[1:]))
    return places


def _of_input(operations: list[ir.Operation], image: Tensor) -> dict[str, str]:
    """Classes of values that are places of the input: where all integers stand for the same."""
    places = _origins(operations, image, {})
    return {name: f"input {p.numpy().tobytes().hex()}" for name, p in places.items() if bool((p < 0).all())}


def _origins(operations: list[ir.Operation], image: Tensor, classes: dict[str, str]) -> dict[str, Tensor]:
    """By value, for each of its places a number for what its integer stands for: the input, a channel of what is one, or its own."""
    known: dict[tuple[str, int], int] = {}
    found = {IMAGE: image}
    for o in operations:
        given = torch.cat([found[name] for name in o.inputs])
        if isinstance(o, ir.Gather):
            found[o.name] = torch.where(o.index >= 0, given[o.index.clamp_min(0)], -1)
        elif isinstance(o, ir.Reshape | ir.Flatten | ir.Concat):
            found[o.name] = given
        else:
            one = classes.get(o.name, o.name) if isinstance(o, ir.Activation | ir.Add) else o.name
            channels = [known.setdefault((one, channel), len(known)) for channel in range(o.shape[0])]
            found[o.name] = torch.tensor(channels).repeat_interleave(prod(o.shape[1:]))
    return found
