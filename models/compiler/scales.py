"""Where a network's values lie on the torus: one scale for each group of values that linear layers connect, powers of two for channels.

A value's unit is worth delta * 2^exponent turns. Between two layers of look-ups everything has the same delta, since integers are all that
a torus value can be multiplied by; a power of two for each channel is folded into the weights before it. Both follow the statistics that
the activations track: the delta is the greatest for which every activation of the group gets the drive it asks for.
"""

from dataclasses import dataclass
from math import floor, log2, prod

import torch
from torch import Tensor, nn

from ciphershift.he_layers.layers.layer import MAX_EXPONENT
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler.ir import (
    Convolution,
    Dense,
    Flat,
    Interleave,
    Join,
    Maximum,
    Mean,
    Operation,
    Ramp,
    Sum,
)
from ciphershift.models.compiler.simplify import readers
from ciphershift.models.nn.layers import Activation, Add, Head, MaxPool
from ciphershift.models.nn.shift import ShiftWeights

PIXEL_LEVELS = 255
LOGIT_PEAK = 0.4
"""Turns given to the greatest logit; half a turn is the end of the torus."""
MAX_PIXEL = 0.249
"""Turns of the brightest pixel: the encoder takes a quarter."""
MAX_LEVEL = 0.9
"""Turns of an activation's whole range."""
MAX_POOLED_LEVEL = 0.24
"""The same, if a max-pool compares activations: differences have a quarter of the torus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One operation without its weights: what is computed from what, and where the user wrote it."""

    name: str
    place: str
    kind: type[Operation]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Torus:
    """By name of a value: ``delta`` turns for a unit, and the exponent of its channels, [C] (or [values] of a vector)."""

    delta: dict[str, float]
    exponent: dict[str, Tensor]

    def turns(self, name: str) -> Tensor:
        """Turns for one unit of each channel."""
        return self.delta[name] * 2.0 ** self.exponent[name]


class Wiring:
    """What follows from the shape of the network alone.

    Attributes:
        group: by value, the group of values that share its delta.
        keys: by value, whether its ciphertexts are under the CKKS input key, and whether under the big key.
        sums: by value, whether it is made of a linear layer's sums rather than of levels (pixels, results of activations).
        owner: by activation, the convolution, dense layer or sum whose channels may be scaled for it alone; none if others read them.
    """

    def __init__(self, operations: list[Operation], input_shape: tuple[int, ...]) -> None:
        self.steps = tuple(
            Step(name=o.name, place=o.place, kind=type(o), inputs=o.inputs, shape=o.shape) for o in operations
        )
        self.by_name = {step.name: step for step in self.steps}
        self.shape: dict[str, tuple[int, ...]] = {IMAGE: input_shape} | {step.name: step.shape for step in self.steps}
        counts = readers(operations)
        self.last_use = {name: step.name for step in self.steps for name in step.inputs}
        self.group: dict[str, str] = {IMAGE: IMAGE}
        self.keys: dict[str, tuple[bool, bool]] = {IMAGE: (True, False)}
        self.owner: dict[str, str | None] = {}
        self.sums: dict[str, bool] = {IMAGE: False}
        for step in self.steps:
            self.group[step.name] = step.name
            if issubclass(step.kind, Ramp):
                self.keys[step.name] = (False, True)
                self.owner[step.name] = self._owner(step.inputs[0], counts)
                self.sums[step.name] = False
                continue
            for name in step.inputs:
                self._unite(step.name, name)
            under_input, under_big = (any(self.keys[name][key] for name in step.inputs) for key in range(2))
            self.keys[step.name] = (under_input, under_big or issubclass(step.kind, Maximum))
            linear = issubclass(step.kind, Convolution | Dense)
            self.sums[step.name] = linear or any(self.sums[name] for name in step.inputs)

    def _unite(self, a: str, b: str) -> None:
        old, new = self.group[b], self.group[a]
        self.group = {name: new if group == old else group for name, group in self.group.items()}

    def _owner(self, name: str, counts: dict[str, int]) -> str | None:
        while counts[name] == 1 and name != IMAGE:
            step = self.by_name[name]
            if issubclass(step.kind, Convolution | Dense | Sum):
                return name
            if not issubclass(step.kind, Maximum | Mean):
                return None
            name = step.inputs[0]
        return None

    def free(self, step: Step, name: str) -> bool:
        """Whether a term of a sum is a linear layer whose scale the sum may choose, since nothing else reads it."""
        read_once = sum(other.inputs.count(name) for other in self.steps) == 1
        return read_once and name != IMAGE and issubclass(self.by_name[name].kind, Convolution | Dense)

    def place(self, nodes: dict[str, nn.Module]) -> Torus:
        """Deltas and exponents by the statistics of the moment."""
        base = self._exponents(nodes, {})
        wanted: dict[str, dict[str, float]] = {group: {} for group in self.group.values()}
        for step in self.steps:
            node = nodes[step.name]
            if isinstance(node, Activation):
                sums = node.spread * 2.0 ** base[self.owner[step.name] or step.inputs[0]]
                wanted[self.group[step.inputs[0]]][step.name] = float(node.drive / sums.pow(2).mean().sqrt())
                wanted[self.group[step.name]][f"{step.name} levels"] = MAX_LEVEL / node.span
            elif isinstance(node, Head):
                wanted[self.group[step.inputs[0]]][step.name] = LOGIT_PEAK / float(node.peak)
            elif isinstance(node, MaxPool) and not self.sums[step.name]:
                wanted[self.group[step.name]][step.name] = MAX_POOLED_LEVEL / self._span(step.name, nodes)
        wanted[self.group[IMAGE]][IMAGE] = MAX_PIXEL / PIXEL_LEVELS
        delta = {group: min(values.values()) for group, values in wanted.items() if values}
        spare = {
            step.name: floor(
                log2(wanted[self.group[step.inputs[0]]][step.name] / delta[self.group[step.inputs[0]]]) + 1e-9
            )
            for step in self.steps
            if isinstance(nodes[step.name], Activation)
        }
        exponent = self._exponents(nodes, spare)
        return Torus(delta={name: delta[group] for name, group in self.group.items()}, exponent=exponent)

    def _span(self, name: str, nodes: dict[str, nn.Module]) -> int:
        """Greatest difference of two levels of a value."""
        if name == IMAGE:
            return PIXEL_LEVELS
        node = nodes[name]
        return (
            node.span if isinstance(node, Activation) else max(self._span(i, nodes) for i in self.by_name[name].inputs)
        )

    def _exponents(self, nodes: dict[str, nn.Module], spare: dict[str, int]) -> dict[str, Tensor]:
        """Exponents of all values; ``spare``: powers of two by which an activation's sums lie below its drive."""
        served = {owner: name for name, owner in self.owner.items() if owner}
        exponent = {IMAGE: torch.zeros(self.shape[IMAGE][0])}
        for step in self.steps:
            node = nodes[step.name]
            given = [exponent[name] for name in step.inputs]
            if isinstance(node, Activation | Head):
                exponent[step.name] = torch.zeros(step.shape[0])
            elif isinstance(node, ShiftWeights):
                room = MAX_EXPONENT + 1 - node.exponents
                exponent[step.name] = self._equalised(
                    nodes, served.get(step.name), torch.zeros(step.shape[0]), room, spare
                )
            elif isinstance(node, Add):
                least = torch.zeros(step.shape[0])
                for name, own, factor in zip(step.inputs, given, node.factors, strict=True):
                    term = nodes.get(name)
                    free = isinstance(term, ShiftWeights) and self.free(step, name)
                    least = torch.maximum(
                        least, -term.shift() if free and isinstance(term, ShiftWeights) else own - factor
                    )
                room = (
                    MAX_EXPONENT
                    + 1
                    - max((n.exponents for n in nodes.values() if isinstance(n, ShiftWeights)), default=1)
                )
                exponent[step.name] = self._equalised(nodes, served.get(step.name), least, room, spare)
            elif issubclass(step.kind, Join):
                exponent[step.name] = torch.cat(given)
            elif issubclass(step.kind, Interleave):
                exponent[step.name] = node(given[0].view(1, -1, 1, 1)).flatten()
            elif issubclass(step.kind, Flat):
                exponent[step.name] = given[0].repeat_interleave(prod(step.shape) // len(given[0]))
            else:
                exponent[step.name] = given[0]
        return exponent

    def _equalised(
        self, nodes: dict[str, nn.Module], activation: str | None, least: Tensor, room: int, spare: dict[str, int]
    ) -> Tensor:
        """Exponents from ``least`` to ``room`` above it that bring the channels' spreads together."""
        if activation is None:
            return least
        node = nodes[activation]
        assert isinstance(node, Activation), "only activations own the scale of sums"
        target = (node.spread * 2.0**least).max()
        wish = torch.log2(target / node.spread).round() + spare.get(activation, 0)
        return torch.minimum(torch.maximum(wish, least), least + room)
