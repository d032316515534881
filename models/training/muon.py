"""Muon for networks with convolutions: steps along the orthogonalised momentum (Jordan et al. 2024; torch.optim.Muon takes matrices only).

Hidden weights are seen as matrices [outputs, inputs x kernel] over the same memory; the last layer's weights and all vectors go by
AdamW, as Muon's authors advise.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.9
VECTOR_RATE = 3e-3
"""Learning rate of AdamW, at the start."""


class Muon:
    """Looks like an optimizer of torch, over two of them.

    Build it after the network has its memory format: it keeps views of the weights.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        """Takes the parameters in the order of the network."""
        parameters = list(parameters)
        *self._hidden, last = [parameter for parameter in parameters if parameter.dim() > 1]
        self._matrices = [nn.Parameter(_matrix(weight.data, weight)) for weight in self._hidden]
        vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(self._matrices, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM),
            torch.optim.AdamW([*vectors, last], lr=VECTOR_RATE, weight_decay=0.0),
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of both parts."""
        return [group for part in self._parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad()
        for weight in self._hidden:
            weight.grad = None

    def step(self) -> None:
        """One step by the gradients of the moment."""
        for weight, matrix in zip(self._hidden, self._matrices, strict=True):
            assert weight.grad is not None, "every weight takes part"
            matrix.grad = _matrix(weight.grad, weight)
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """State of both parts."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        for part, own in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(own)


def _matrix(values: Tensor, weight: Tensor) -> Tensor:
    """Values [O, I, H, W] or [O, I] as [O, -1], in the order in which ``weight`` lies in memory."""
    ordered = values if weight.is_contiguous() else values.movedim(1, -1)
    return ordered.reshape(len(ordered), -1)
