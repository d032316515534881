"""Muon for networks with convolutions: steps along the orthogonalized momentum (Jordan et al. 2024; torch.optim.Muon takes matrices only).

Hidden weights are seen as matrices [outputs, inputs x kernel]; the last layer's weights and all vectors go by AdamW, as Muon's authors
advise. On a GPU every number that changes lies in a tensor, so that a step can be captured as a graph (models.training.capture).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.9
VECTOR_RATE = 3e-3
"""Learning rate of AdamW, at the start."""
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration that brings singular values near one (Jordan et al. 2024)."""


class Muon:
    """Looks like an optimizer of torch."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float, unit_rows: bool = False
    ) -> None:
        """Takes the parameters in the order of the network.

        Args:
            parameters: of the network.
            lr: learning rate of the hidden weights.
            weight_decay: of the hidden weights.
            unit_rows: bring each row of the hidden weights to length one, now and after each step. Only for networks in which a
                normalization follows every hidden layer: the length of a row has no meaning there, and a rate becomes an angle.
        """
        parameters = list(parameters)
        *self._hidden, last = [parameter for parameter in parameters if parameter.dim() > 1]
        vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
        self._momenta = [torch.zeros_like(weight) for weight in self._hidden]
        self._weight_decay, self._unit_rows = weight_decay, unit_rows
        self._group: dict[str, Any] = {"lr": torch.tensor(lr, device=last.device)}
        self._rest = adam([*vectors, last], lr=VECTOR_RATE, weight_decay=0.0)
        if unit_rows:
            for weight in self._hidden:
                to_unit_rows(weight)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of both parts."""
        return [self._group, *self._rest.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._rest.zero_grad()
        for weight in self._hidden:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step by the gradients of the moment."""
        rate = self._group["lr"]
        for weight, momentum in zip(self._hidden, self._momenta, strict=True):
            assert weight.grad is not None, "every weight takes part"
            momentum.lerp_(weight.grad, 1 - MOMENTUM)
            direction = orthogonal(torch.lerp(weight.grad, momentum, MOMENTUM).flatten(1))
            longer = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
            if self._weight_decay:
                weight.mul_(1 - rate * self._weight_decay)
            weight.sub_(direction.view(weight.shape) * (rate * longer))
            if self._unit_rows:
                to_unit_rows(weight)
        self._rest.step()

    def state_dict(self) -> dict[str, Any]:
        """State of both parts."""
        return {"momenta": self._momenta, "rest": self._rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        for mine, given in zip(self._momenta, state["momenta"], strict=True):
            mine.copy_(given)
        self._rest.load_state_dict(state["rest"])


def adam(parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW whose step can be captured where the parameters lie on a GPU."""
    parameters = list(parameters)
    if not parameters[0].is_cuda:
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    rate = torch.tensor(lr, device=parameters[0].device)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay, capturable=True, fused=True)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T [rows, columns], float32; singular values come out between 0.7 and 1.2."""
    a, b, c = QUINTIC
    x = matrix.bfloat16()
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / wide.norm().clamp_min(1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    result: Tensor = (wide if x.shape[0] <= x.shape[1] else wide.T).float()
    return result.contiguous()


@torch.no_grad()
def to_unit_rows(weight: Tensor) -> None:
    """Divides each weight [O, ...] by the length of its row."""
    weight.div_(weight.pow(2).sum(tuple(range(1, weight.dim())), keepdim=True).sqrt().clamp_min(1e-8))
