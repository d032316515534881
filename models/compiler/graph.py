"""What follows from the shape of a network alone: who reads what, which values share a scale, and which keys ciphertexts are under."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.rewrite import readers


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One operation without its weights: what is computed from what, and where the user wrote it."""

    name: str
    place: str
    kind: type[ir.Operation]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


class Wiring:
    """The steps of a network and how they are connected.

    Attributes:
        group: by value, the group of values that share its delta.
        keys: by value, whether its ciphertexts are under the CKKS input key, and whether under the big key.
        sums: by value, whether it is made of a linear layer's sums rather than of levels (pixels, results of activations).
        index: by step that moves values, where they come from; none for a step that only changes the shape.
        mixing: steps that put values of several channels into one.
        uniform: values whose channels must share one unit, since a step mixes the places of several channels.
        powers: activations and linear layers whose units must be powers of two, since a sum adds them to others of that kind.
        ties: by linear layer, activation and sum that is one with others (models.compiler.ties): the name of the first of them.
        input_levels: steps of a pixel or a feature.
        owner: by activation, the convolution, dense layer or sum whose channels may be scaled for it alone; none if others read them, or
            those of an activation that is one with it.
    """

    def __init__(
        self,
        operations: list[ir.Operation],
        input_shape: tuple[int, ...],
        ties: dict[str, str] | None = None,
        input_levels: int = 255,
    ) -> None:
        self.ties, self.input_levels = ties or {}, input_levels
        self.steps = tuple(
            Step(name=o.name, place=o.place, kind=type(o), inputs=o.inputs, shape=o.shape) for o in operations
        )
        self.by_name = {step.name: step for step in self.steps}
        self.shape: dict[str, tuple[int, ...]] = {IMAGE: input_shape} | {step.name: step.shape for step in self.steps}
        self.index = {
            o.name: o.index if isinstance(o, ir.Gather) else None
            for o in operations
            if isinstance(o, ir.Gather | ir.Reshape)
        }
        counts = readers(operations)
        self._once = {name for name, count in counts.items() if count == 1}
        self.last_use = {name: step.name for step in self.steps for name in step.inputs}
        self.group: dict[str, str] = {IMAGE: IMAGE}
        self.keys: dict[str, tuple[bool, bool]] = {IMAGE: (True, False)}
        self.owner: dict[str, str | None] = {}
        self.sums: dict[str, bool] = {IMAGE: False}
        for step in self.steps:
            self.group[step.name] = step.name
            if issubclass(step.kind, ir.Activation):
                self.keys[step.name] = (False, True)
                self.owner[step.name] = self._owner(step.inputs[0], counts)
                self.sums[step.name] = False
                continue
            for name in step.inputs:
                self._unite(step.name, name)
            under_input, under_big = (any(self.keys[name][key] for name in step.inputs) for key in range(2))
            self.keys[step.name] = (under_input, under_big or issubclass(step.kind, ir.MaxPool2d))
            linear = issubclass(step.kind, ir.Conv2d | ir.Linear)
            assert not (linear and any(self.sums[name] for name in step.inputs)), "linear layers read levels"
            self.sums[step.name] = linear or any(self.sums[name] for name in step.inputs)
        self._unite_tied()
        self.mixing: set[str] = set()
        self.uniform = self._with_tied(self._mixed(operations))
        self.powers = self._with_tied(self._added())

    @property
    def recurrent(self) -> dict[str, str]:
        """By linear layer that reads the states of the step before: the activation that gives these states; both by their first step."""
        found: dict[str, str] = {}
        sums = {owner: name for name, owner in self.owner.items() if owner}
        for step in self.steps:
            reader = next((s.name for s in self.steps if step.name in s.inputs), "")
            activation = self.ties.get(sums.get(step.name) or sums.get(reader, ""))
            if step.name in self.ties and activation and self.ties.get(step.inputs[0]) == activation:
                found[self.ties[step.name]] = activation
        return found

    def _with_tied(self, names: set[str]) -> set[str]:
        """The names, and those of all layers that are one with them."""
        first = {self.ties[name] for name in names if name in self.ties}
        return names | {name for name, leader in self.ties.items() if leader in first}

    def _unite_tied(self) -> None:
        """What one activation reads lies in one place on the torus at all steps, whatever else reads it at some of them."""
        for name, first in self.ties.items():
            if name in self.owner:
                self._unite(self.by_name[first].inputs[0], self.by_name[name].inputs[0])
        shared = {self.ties.get(name) for name, owner in self.owner.items() if owner is None}
        for name in self.owner:
            if name in self.ties and self.ties[name] in shared:
                self.owner[name] = None

    def _unite(self, a: str, b: str) -> None:
        old, new = self.group[b], self.group[a]
        if old == new:
            return
        self.group = {name: new if group == old else group for name, group in self.group.items()}

    def _owner(self, name: str, counts: dict[str, int]) -> str | None:
        while counts[name] == 1 and name != IMAGE:
            step = self.by_name[name]
            if issubclass(step.kind, ir.Conv2d | ir.Linear | ir.Add):
                return name
            if not issubclass(step.kind, ir.MaxPool2d | ir.AvgPool2d | ir.Affine):
                return None
            name = step.inputs[0]
        return None

    def by_channel(self, values: list[Tensor], step: Step) -> Tensor:
        """Numbers [C] of each input's channels as those of the result's channels, for a step that moves values.

        Channels of the result that mix several have the greatest of their numbers: the caller sees to it that they are equal.
        """
        each = [v.repeat_interleave(prod(self.shape[name][1:])) for v, name in zip(values, step.inputs, strict=True)]
        result = moved(torch.cat(each), self.index[step.name], float("-inf")).view(step.shape[0], -1).amax(1)
        return torch.where(torch.isinf(result), torch.cat(each).max(), result)

    def _mixed(self, operations: list[ir.Operation]) -> set[str]:
        """Values that reach a step which puts values of several channels into one."""
        found: set[str] = set()

        def mark(name: str) -> None:
            if name == IMAGE or name in found:
                return
            found.add(name)
            if not issubclass(self.by_name[name].kind, ir.Activation | ir.Conv2d | ir.Linear):
                for source in self.by_name[name].inputs:
                    mark(source)

        for operation in operations:
            if isinstance(operation, ir.Gather | ir.Reshape):
                index = self.index[operation.name]
                channels = torch.cat([channel_of(self.shape[name]) for name in operation.inputs])
                one = [self.ties.get(name, name) for name in operation.inputs]  # steps of one layer have one unit
                offsets = torch.cat(
                    [
                        torch.full((prod(self.shape[n]),), one.index(o))
                        for n, o in zip(operation.inputs, one, strict=True)
                    ]
                )
                codes = moved(channels + offsets * int(channels.max() + 1), index, -1.0).view(operation.shape[0], -1)
                filled = torch.where(codes >= 0, codes, codes.amax(1, keepdim=True))
                if bool((filled != filled[:, :1]).any()):
                    self.mixing.add(operation.name)
                    for name in operation.inputs:
                        mark(name)
        return found

    def _added(self) -> set[str]:
        """Activations and linear layers that reach a sum as one of several terms whose scale is given."""
        found: set[str] = set()

        def mark(name: str) -> None:
            if name == IMAGE or name in found:
                return
            if issubclass(self.by_name[name].kind, ir.Activation | ir.Conv2d | ir.Linear):
                found.add(name)
            else:
                for source in self.by_name[name].inputs:
                    mark(source)

        for step in self.steps:
            if issubclass(step.kind, ir.Add):
                fixed = [name for name in step.inputs if not self.free(step, name)]
                for name in fixed if len(fixed) > 1 else ():
                    mark(name)
        return found

    def free(self, step: Step, name: str) -> bool:
        """Whether a term of a sum is a linear layer whose scale the sum may choose, since nothing else reads it."""
        return name in self._once and name != IMAGE and issubclass(self.by_name[name].kind, ir.Conv2d | ir.Linear)


def channel_of(shape: tuple[int, ...]) -> Tensor:
    """The channel of every value of a shape, in C order, float [values]."""
    return torch.arange(shape[0], dtype=torch.float64).repeat_interleave(prod(shape[1:]))


def moved(values: Tensor, index: Tensor | None, zero: float) -> Tensor:
    """Flat values at the places of ``index``, if there is one; ``zero`` where it is -1."""
    if index is None:
        return values
    index = index.to(values.device)
    return torch.where(index >= 0, values[index.clamp_min(0)], torch.full_like(values[:1], zero))
