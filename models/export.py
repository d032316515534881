"""From a trained network to a Program: integer weights, integer biases, multipliers and torus scales."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from he_layers.layers import Conv, Flatten, Layer, Linear, MaxPool, Relu
from he_layers.program import InputSpec, OutputSpec, Program
from models.network import Block, Network
from models.shift import ShiftConv2d

PIXEL_LEVELS = 255


def to_program(network: Network, *, name: str, version: str, params: str, classes: tuple[str, ...]) -> Program:
    """The Program that computes what ``network``, quantised, computes in evaluation mode.

    Args:
        network: trained with integer weights; its statistics fix the torus scales.
        name: of the model.
        version: of the weights.
        params: name of the parameter set whose noise the network was trained with.
        classes: names of the classes.
    """
    blocks = list(network.stages())
    units = [block.unit() for block in blocks] + [network.head.unit()]
    levels = [PIXEL_LEVELS] + [network.levels] * len(blocks)
    layers: list[Layer] = []
    for index, block in enumerate(blocks):
        if not isinstance(block.linear, ShiftConv2d) and not any(isinstance(layer, Flatten) for layer in layers):
            layers.append(Flatten(name="flatten"))
        layers += _linear_layers(block, index + 1)
        layers.append(_relu(block, index + 1, levels_in=levels[index], delta_out=units[index + 1] / network.levels))
    head = network.head.linear
    scale = float(head.scale()) / network.levels
    if not any(isinstance(layer, Flatten) for layer in layers):
        layers.append(Flatten(name="flatten"))
    bias = _integers(network.head.bias.double() / scale).astype(np.int32)
    layers.append(Linear(name="logits", weight=_integers(head.integer_weight()).astype(np.int8), bias=bias))
    return Program(
        name=name,
        version=version,
        params=params,
        input=InputSpec(shape=network.input_shape, levels=PIXEL_LEVELS, delta=units[0] / PIXEL_LEVELS),
        layers=tuple(layers),
        output=OutputSpec(classes=classes, scale=scale),
    )


def _linear_layers(block: Block, number: int) -> list[Layer]:
    linear = block.linear
    equaliser = block.equaliser().view(-1, *[1] * (linear.weight.dim() - 1))
    weight = _integers(linear.integer_weight() * equaliser).astype(np.int8)
    if not isinstance(linear, ShiftConv2d):
        return [Linear(name=f"dense{number}", weight=weight)]
    conv = Conv(
        name=f"conv{number}",
        weight=weight,
        stride=(linear.stride, linear.stride),
        padding=(linear.padding, linear.padding),
        groups=linear.groups,
    )
    window = (block.pool, block.pool)
    return [conv] if block.pool == 1 else [conv, MaxPool(name=f"pool{number}", kernel=window, stride=window)]


def _relu(block: Block, number: int, *, levels_in: int, delta_out: float) -> Relu:
    integers_per_sum = block.equaliser().double() * levels_in
    std = block.std.double()
    bias = (block.offset.double() * std - block.mean.double()) * integers_per_sum
    multiplier = block.levels / (block.tops().double() * std * integers_per_sum)
    return Relu(
        name=f"relu{number}",
        bias=_integers(bias).astype(np.int32),
        multiplier=multiplier.detach().numpy(),
        levels=block.levels,
        delta_out=delta_out,
    )


def _integers(values: Tensor) -> NDArray[np.int64]:
    return np.asarray(np.rint(values.detach().double().numpy()), dtype=np.int64)
