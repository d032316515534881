"""A recurrent layer whose state forgets: its recurrent matrix has a spectral norm below one, in training and in the circuit.

h_t = clip(W x_t + U h_{t-1} + b, 0, 1) with ||U||_2 <= LIMIT. The clip never moves two numbers apart, so that an error e of a state is at
most LIMIT * e one step later, and errors of at most epsilon in every step stay below epsilon / (1 - LIMIT) at any length. ReLU networks of
this kind compute what unitary ones with twice the states do (Emami et al., NeurIPS 2019; models.nn.unitary).
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

LIMIT = 0.95
"""Greatest spectral norm of a recurrent matrix after each step of training."""


class Steps(nn.Module):
    """Images and series as sequences: ``width`` rows from top to bottom, or as many places of a series, at a time."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, H / width, C * width * W]; [B, C, L] -> [B, L / width, C * width]."""
        rows = x.reshape(*x.shape[:2], x.shape[2] // self.width, self.width * prod(x.shape[3:]))
        return rows.transpose(1, 2).flatten(2)


class Recurrent(nn.Module):
    """One layer of weights ``input`` and ``state``, nn.Linear both; gives every ``every``-th state, the last one among them."""

    def __init__(self, inputs: int, units: int, every: int = 1) -> None:
        super().__init__()
        self.every = every
        self.input, self.state = nn.Linear(inputs, units), nn.Linear(units, units, bias=False)
        nn.init.orthogonal_(self.state.weight, gain=LIMIT)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, inputs] -> [B, T // every, units]."""
        states: list[Tensor] = []
        for step in x.unbind(1):
            sums = self.input(step)
            if states:
                sums = sums + self.state(states[-1])
            states.append(torch.clamp(sums, 0.0, 1.0))
        return torch.stack(states[:: -self.every][::-1], dim=1)

    def contract(self) -> None:
        """Brings the recurrent matrix to the nearest one whose spectral norm is at most LIMIT."""
        with torch.no_grad():
            self.state.weight.copy_(contracted(self.state.weight, LIMIT))


def contracted(matrix: Tensor, limit: float) -> Tensor:
    """The nearest matrix, in the Frobenius norm, whose singular values are at most ``limit``."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return matrix if float(values[0]) <= limit else left @ torch.diag(values.clamp_max(limit)) @ right


def contractive(module: nn.Module) -> Iterator[Recurrent]:
    """The recurrent layers of a module that training keeps contractive."""
    return (part for part in module.modules() if isinstance(part, Recurrent))
