"""A scale of its own on the torus for a value that would drown in noise on the one it shares: a look-up that changes nothing.

Values that linear layers connect share one delta. If a network reads its input again behind a look-up, as gates that the client computes,
the first layer's long sums set the delta for the later ones, too. And a max-pool of levels compares them where the next layer's long sums
want them small.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import hypot
from typing import Any

import torch
from torch import Tensor

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.affine import one_tap
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.activations import Activation
from ciphershift.models.nn.layers import MaxPool2d

MOVES = ir.Affine | ir.Gather | ir.Reshape | ir.Flatten | ir.Concat | ir.ChannelShuffle
LOUD = 4.0
"""Deviation of a bootstrap's own noise, in levels of its result; rounding has 0.29."""
LOUD_POOL = 0.5
"""Deviation of the noise of a comparison, as a share of that of what is compared, in most channels."""


def drowned(network: Network, noise: CircuitNoise) -> bool:
    """Whether a calibrated network has results of look-ups that share the scale of the input, and are less than their noise there.

    Not of one with steps that share their weights: they stay one layer, which the input of the first step feeds, too.
    """
    if network.wiring.ties:
        return False
    torus, group = network.torus(), network.wiring.group
    shares = any(isinstance(node, Activation) and group[step.name] == group[IMAGE] for step, node in network.steps())
    return shares and noise.lookup > LOUD * float(torus.delta[IMAGE])


def drowned_pools(network: Network, noise: CircuitNoise, differences: Mapping[str, Tensor]) -> set[str]:
    """Max-pools that compare levels on a scale on which noise is most of the differences; none where steps share their weights.

    Args:
        network: calibrated.
        noise: of the circuit.
        differences: between the greatest and the least value of each window, on the calibration data, [B, C, ...] by max-pool.
    """
    if network.wiring.ties:
        return set()
    torus, compared = network.torus(), hypot(noise.modulus_switch, noise.big_key_switch)
    found = set()
    for step, node in network.steps():
        if not isinstance(node, MaxPool2d) or network.wiring.sums[step.name]:
            continue
        apart = differences[step.name].pow(2).mean((0, 2, 3)).sqrt() * torus.turns(step.name)
        if compared > LOUD_POOL * float(apart[apart > 0].median()):
            found.add(step.name)
    return found


def with_pools_apart(operations: list[ir.Operation], pools: set[str]) -> list[ir.Operation]:
    """The operations, with such a look-up behind these max-pools."""
    result: list[ir.Operation] = []
    later: dict[str, str] = {}
    for operation in operations:
        result.append(replace(operation, inputs=tuple(later.get(name, name) for name in operation.inputs)))
        if operation.name in pools:
            later[operation.name] = f"{operation.name}_kept"
            result.append(_kept(operation.name, later[operation.name], operation.place, operation.shape))
    return result


def _kept(name: str, new: str, place: str, shape: Shape) -> ir.LookUp:
    """A look-up that changes nothing."""
    return ir.LookUp(name=new, inputs=(name,), place=place, shape=shape, function=lambda x: x, rises=True)


def with_input_apart(operations: list[ir.Operation], input_shape: Shape) -> list[ir.Operation]:
    """The operations, with such a look-up for what is read of the input where it is added to, or joined with, results of look-ups.

    The look-up reads one tap of weight one, which brings a level to its place on the torus.
    """
    shapes = {IMAGE: input_shape} | {operation.name: operation.shape for operation in operations}
    readers, apart = _mixed(operations), dict[str, str]()
    result: list[ir.Operation] = []
    for operation in operations:
        given = [name for name in operation.inputs if (operation.name, name) in readers]
        for name in given:
            if name not in apart:
                apart[name] = f"{operation.name}_input"
                own: dict[str, Any] = {"place": operation.place, "shape": shapes[name]}
                ones, tap = torch.ones(shapes[name][0]), f"{operation.name}_tap"
                result += one_tap(ir.Affine(name=tap, inputs=(name,), scale=ones, shift=0 * ones, **own))
                result.append(_kept(tap, apart[name], operation.place, shapes[name]))
        inputs = tuple(apart[name] if name in given else name for name in operation.inputs)
        result.append(replace(operation, inputs=inputs) if given else operation)
    return result


def _mixed(operations: list[ir.Operation]) -> set[tuple[str, str]]:
    """Operations that read the input's own levels, and these, on the way to a step that mixes them with results of look-ups."""
    by_name, found = {operation.name: operation for operation in operations}, set()
    pure = {IMAGE: True}
    for operation in operations:
        given = [pure[name] for name in operation.inputs]
        pure[operation.name] = all(given) and not isinstance(operation, ir.Activation)
        for name in operation.inputs if any(given) and not all(given) else ():
            reader = operation.name
            while pure[name] and not _levels(name, by_name):
                reader, name = name, by_name[name].inputs[0]
            if pure[name]:
                found.add((reader, name))
    return found


def _levels(name: str, by_name: dict[str, ir.Operation]) -> bool:
    """Whether a value is the input at other places, and nothing is computed of it."""
    if name == IMAGE:
        return True
    operation = by_name[name]
    return isinstance(operation, MOVES) and all(_levels(source, by_name) for source in operation.inputs)
