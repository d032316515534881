"""A deep gated network: one network gives the gates, another one the values that they let through.

Lakshminarayanan and Singh, "Neural Path Features and Neural Path Kernel", NeurIPS 2020. Layer l of the values is (W_l v) * sigmoid(4 h_l),
where h_l are the sums of layer l of a network with activations on the same input. Once the gates are known, the values are linear in it.
"""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

STEEPNESS = 4.0
"""Of the gates, as in the paper's experiments."""


class Gates(nn.Module):
    """The network of the gates; it gives the input and all gates as one series, so that ``convert(public="gates")`` can cut behind it."""

    def __init__(self, layers: list[nn.Sequential]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, 1, values of the input and gates of all layers]."""
        found, state = [x.flatten(1)], x
        for layer in self.layers:
            sums = layer(state)
            found.append(torch.sigmoid(STEEPNESS * sums).flatten(1))
            state = torch.clamp(sums, 0.0, 1.0)
        return torch.cat(found, dim=1)[:, None]


class Gated(nn.Module):
    """Both networks; the last layer, which gives the logits, has no gates."""

    def __init__(self, gates: nn.Sequential, values: nn.Sequential, input_shape: tuple[int, ...]) -> None:
        """Of two ordinary networks with the same activations, nn.Hardtanh, in whose places the gates are.

        Args:
            gates: its last layer is left out.
            values: its activations are left out.
            input_shape: of a sample.
        """
        super().__init__()
        (*first, _), (*second, self.head) = _layers(gates), _layers(values)
        self.gates, self.layers = Gates(first), nn.ModuleList(second)
        shapes, x = [input_shape], torch.zeros(2, *input_shape)
        for layer in second:
            x = layer.eval()(x)
            shapes.append(tuple(x.shape[1:]))
        self.shapes = shapes
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> logits."""
        packed, ends = self.gates(x), [0]
        for shape in self.shapes:
            ends.append(ends[-1] + prod(shape))
        parts = [packed[:, 0, start:end] for start, end in pairwise(ends)]
        value, *gates = (part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True))
        for layer, gate in zip(self.layers, gates, strict=True):
            value = layer(value) * gate
        logits: Tensor = self.head(value)
        return logits


def _layers(network: nn.Sequential) -> list[nn.Sequential]:
    """What is between the activations."""
    found: list[list[nn.Module]] = [[]]
    for part in network:
        if isinstance(part, nn.Hardtanh):
            found.append([])
        else:
            found[-1].append(part)
    return [nn.Sequential(*parts) for parts in found]
