"""From a network of the exact profile (models.nn.exact) to a Program."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ciphershift.he_layers import layers
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.models.nn.exact import ExactNetwork, SparseConvSpec, whole


def export_exact(network: ExactNetwork, *, name: str, version: str, params: str, classes: tuple[str, ...]) -> Program:
    """The Program of the exact profile that computes what ``network``, quantized, computes in evaluation mode.

    Args:
        network: trained.
        name: of the model.
        version: of the weights.
        params: name of a parameter set under which look-ups modulo the network's modulus are read right.
        classes: names of the classes.
    """
    blocks = list(network.stages())
    steps: list[layers.Layer] = []
    for number, block in enumerate(blocks, start=1):
        spec, weight = block.spec, _integers(block.weights()).astype(np.int8)
        if isinstance(spec, SparseConvSpec):
            steps.append(
                layers.Conv2d(
                    name=f"conv{number}", weight=weight, stride=(spec.stride,) * 2, padding=(spec.padding,) * 2
                )
            )
            if spec.pool > 1:
                pool = (spec.pool, spec.pool)
                steps.append(layers.MaxPool2d(name=f"pool{number}", kernel=pool, stride=pool, modulus=block.modulus))
        else:
            steps += (
                [] if any(isinstance(layer, layers.Flatten) for layer in steps) else [layers.Flatten(name="flatten")]
            )
            steps.append(layers.Linear(name=f"dense{number}", weight=weight))
        bias, length = block.ramp(block.mean, block.std)
        steps.append(
            layers.ReLU(
                name=f"relu{number}",
                bias=_integers(bias).astype(np.int32),
                multiplier=(block.levels / length.detach().double()).numpy(),
                levels=block.levels,
                delta_out=1 / (network.logit_modulus if block is blocks[-1] else block.modulus),
                modulus=block.modulus,
            )
        )
    steps += [] if any(isinstance(layer, layers.Flatten) for layer in steps) else [layers.Flatten(name="flatten")]
    head = layers.Linear(
        name="logits",
        weight=_integers(network.head()).astype(np.int8),
        bias=_integers(whole(network.bias)).astype(np.int32),
        modulus=network.logit_modulus,
    )
    delta = 1 / blocks[0].modulus
    return Program(
        name=name,
        version=version,
        params=params,
        profile="exact",
        input=InputSpec(shape=network.input_shape, levels=network.pixel_levels, delta=delta),
        layers=(*steps, head),
        output=OutputSpec(classes=classes, scale=float(network.logit_scale.detach())),
    )


def _integers(values: Tensor) -> NDArray[np.int64]:
    return np.asarray(np.rint(values.detach().numpy()), dtype=np.int64)
