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
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.graph import Step, Wiring
from ciphershift.models.nn.activations import Activation
from ciphershift.models.nn.layers import Add, AvgPool2d, Head, MaxPool2d
from ciphershift.models.nn.shift import ShiftWeights

PIXEL_LEVELS = 255
REFINEMENT = 64
"""By which a second answer is larger, in a network without look-ups."""
LOGIT_PEAK = 0.4
"""Turns given to the greatest logit; half a turn is the end of the torus."""
MAX_PIXEL = 0.249
"""Turns of the brightest pixel: the encoder takes a quarter."""
MAX_LEVEL = 0.9
"""Turns of an activation's whole range."""
MAX_POOLED_LEVEL = 0.24
"""The same, if a max-pool compares activations: differences have a quarter of the torus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Torus:
    """By name of a value: ``delta`` turns for a unit, float64 [], and the exponent of its channels, [C] (or [values] of a vector)."""

    delta: dict[str, Tensor]
    exponent: dict[str, Tensor]

    def turns(self, name: str) -> Tensor:
        """Turns for one unit of each channel."""
        return self.delta[name] * 2.0 ** self.exponent[name]

    def take(self, other: "Torus") -> None:
        """The values of ``other``, in the memory of this one, which a captured graph reads."""
        for mine, new in ((self.delta, other.delta), (self.exponent, other.exponent)):
            for name, value in mine.items():
                value.copy_(new[name])


def place(wiring: Wiring, nodes: dict[str, nn.Module]) -> Torus:
    """Deltas and exponents by the statistics of the moment.

    Args:
        wiring: of the network.
        nodes: its trainable layers by name of the step.
    """
    base = _exponents(wiring, nodes, {})
    wanted: dict[str, dict[str, float]] = {group: {} for group in wiring.group.values()}
    for step in wiring.steps:
        node = nodes[step.name]
        if isinstance(node, Activation):
            sums = node.spread * 2.0 ** base[wiring.owner[step.name] or step.inputs[0]]
            wanted[wiring.group[step.inputs[0]]][step.name] = float(node.drive / sums.pow(2).mean().sqrt())
            wanted[wiring.group[step.name]][f"{step.name} levels"] = MAX_LEVEL / node.span
        elif isinstance(node, Head):
            wanted[wiring.group[step.inputs[0]]][step.name] = LOGIT_PEAK / float(node.reach())
        elif isinstance(node, MaxPool2d) and not wiring.sums[step.name]:
            units = float(_span(wiring, step.name, nodes) * 2.0 ** base[step.name].max())
            wanted[wiring.group[step.name]][step.name] = MAX_POOLED_LEVEL / units
    wanted[wiring.group[IMAGE]][IMAGE] = MAX_PIXEL / wiring.input_levels
    delta = {group: min(values.values()) for group, values in wanted.items() if values}
    spare = {
        step.name: floor(
            log2(wanted[wiring.group[step.inputs[0]]][step.name] / delta[wiring.group[step.inputs[0]]]) + 1e-9
        )
        for step in wiring.steps
        if isinstance(nodes[step.name], Activation)
    }
    exponent = _exponents(wiring, nodes, spare)
    turns = {name: torch.tensor(delta[group], dtype=torch.float64) for name, group in wiring.group.items()}
    return Torus(delta={name: value.to(_device(nodes)) for name, value in turns.items()}, exponent=exponent)


def _device(nodes: dict[str, nn.Module]) -> torch.device:
    """Where the statistics lie."""
    return next(buffer for node in nodes.values() for buffer in node.buffers()).device


def _span(wiring: Wiring, name: str, nodes: dict[str, nn.Module]) -> float:
    """Greatest difference of two numbers that levels, and sums and averages of levels, can be."""
    if name == IMAGE:
        return wiring.input_levels
    node = nodes[name]
    if isinstance(node, Activation):
        return node.span
    spans = [_span(wiring, source, nodes) for source in wiring.by_name[name].inputs]
    if isinstance(node, Add):
        factors = 2.0 ** node.factors.amax(1)
        return sum(each * float(factor) for each, factor in zip(spans, factors, strict=True))
    return max(spans) * (node.kernel[0] * node.kernel[1] if isinstance(node, AvgPool2d) else 1)


def _exponents(wiring: Wiring, nodes: dict[str, nn.Module], spare: dict[str, int]) -> dict[str, Tensor]:
    """Exponents of all values; ``spare``: powers of two by which an activation's sums lie below its drive."""
    served = {owner: name for name, owner in wiring.owner.items() if owner}
    device, tied = _device(nodes), _least_of_tied(wiring, nodes)
    exponent = {IMAGE: torch.zeros(wiring.shape[IMAGE][0], device=device)}
    widest = max((node.exponents for node in nodes.values() if isinstance(node, ShiftWeights)), default=1)
    for step in wiring.steps:
        node = nodes[step.name]
        given = [exponent[name] for name in step.inputs]
        if isinstance(node, Activation | Head):
            exponent[step.name] = torch.zeros(step.shape[0], device=device)
        elif isinstance(node, ShiftWeights):
            room = MAX_EXPONENT + 1 - node.exponents
            least = (-node.shift()).clamp_min(0)
            least = tied.get(wiring.ties.get(served.get(step.name, ""), ""), least)
            owner = None if step.name in wiring.uniform else served.get(step.name)
            exponent[step.name] = _equalized(nodes, owner, _one(least, step, wiring), room, spare)
        elif isinstance(node, Add):
            least = torch.zeros(step.shape[0], device=device)
            for name, own, factor in zip(step.inputs, given, node.factors, strict=True):
                term = nodes.get(name)
                free = isinstance(term, ShiftWeights) and wiring.free(step, name)
                least = torch.maximum(least, -term.shift() if free and isinstance(term, ShiftWeights) else own - factor)
            least = tied.get(wiring.ties.get(served.get(step.name, ""), ""), least)
            if step.name in wiring.ties:
                least = torch.maximum(least, tied.get(wiring.ties[step.name], least))
            owner = None if step.name in wiring.uniform else served.get(step.name)
            room = MAX_EXPONENT + 1 - widest
            exponent[step.name] = _equalized(nodes, owner, _one(least, step, wiring), room, spare)
        elif step.name in wiring.index:
            exponent[step.name] = wiring.by_channel(given, step)
        elif issubclass(step.kind, ir.Concat):
            exponent[step.name] = torch.cat(given)
        elif issubclass(step.kind, ir.ChannelShuffle):
            exponent[step.name] = node(given[0].view(1, -1, 1, 1)).flatten()
        elif issubclass(step.kind, ir.Flatten):
            exponent[step.name] = given[0].repeat_interleave(prod(step.shape) // len(given[0]))
        else:
            exponent[step.name] = given[0].clone()
    return exponent


def _least_of_tied(wiring: Wiring, nodes: dict[str, nn.Module]) -> dict[str, Tensor]:
    """By name of the first of tied activations and sums: least exponent with which the weights of all their steps are whole."""
    found: dict[str, Tensor] = {}

    def take(first: str, least: Tensor) -> None:
        found[first] = torch.maximum(found.get(first, least), least).clamp_min(0)

    for step in wiring.steps:
        first, node, owner = wiring.ties.get(step.name), nodes[step.name], wiring.owner.get(step.name)
        if first is not None and isinstance(node, Add):
            for name, factor in zip(step.inputs, node.factors, strict=True):
                term, own = nodes.get(name), torch.zeros_like(factor)
                if isinstance(term, ShiftWeights):
                    own = (-term.shift()).clamp_min(0)
                elif isinstance(term, Add):
                    own = found.get(wiring.ties.get(name, ""), own)
                take(first, own - factor)
        elif first is not None and owner is not None and not (isinstance(nodes[owner], Add) and owner in wiring.ties):
            for name in wiring.by_name[owner].inputs if isinstance(nodes[owner], Add) else (owner,):
                linear = nodes[name]
                assert isinstance(linear, ShiftWeights), "a sum that is not tied has linear layers alone"
                take(first, -linear.shift())
    return found


def _one(exponents: Tensor, step: Step, wiring: Wiring) -> Tensor:
    """The greatest exponent for all channels, if they must share one unit."""
    return exponents.max().expand_as(exponents) if step.name in wiring.uniform else exponents


def _equalized(
    nodes: dict[str, nn.Module], activation: str | None, least: Tensor, room: int, spare: dict[str, int]
) -> Tensor:
    """Exponents from ``least`` to ``room`` above it that bring the channels' spreads together."""
    if activation is None:
        return least
    node = nodes[activation]
    assert isinstance(node, Activation), "only activations own the scale of sums"
    target = (node.reach * 2.0**least).max()
    wish = torch.log2(target / node.reach).round() + spare.get(activation, 0)
    return torch.minimum(torch.maximum(wish, least), least + room)
