"""The unitary recurrent network that computes what a contractive one computes (Emami, Sahraee-Ardakan, Rangan and Fletcher, NeurIPS 2019).

Theorem 1 there: h_k = ReLU(W h_{k-1} + F x_k + b), y_k = C h_k with ||W||_2 < 1 and bounded inputs equals a network with at most twice the
states whose recurrent matrix is orthogonal. Here it shows that the contractive form loses nothing; the contractive form is what is served,
since the other one's further states are zeros that cost as many look-ups (docs/decisions/0191-contractive-not-unitary.md).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ReluNetwork:
    """h_k = clip(recurrent h_{k-1} + entry x_k + bias, 0, top) from h = 0 on, and y_k = exit h_k; float64, [n, n], [n, m], [n], [p, n]."""

    recurrent: Tensor
    entry: Tensor
    bias: Tensor
    exit: Tensor
    top: float = float("inf")

    def run(self, x: Tensor) -> Tensor:
        """[steps, m] -> [steps, p]."""
        h, results = torch.zeros_like(self.bias), []
        for step in x:
            h = torch.clamp(self.recurrent @ h + self.entry @ step + self.bias, 0.0, self.top)
            results.append(self.exit @ h)
        return torch.stack(results)


def unitary(network: ReluNetwork, greatest: float) -> ReluNetwork:
    """The same input-output map with an orthogonal recurrent matrix and twice the states.

    The matrix is Halmos's dilation [[W, (I - W W')^1/2], [(I - W' W)^1/2, -W']]. The bias of the new states, -||(I - W' W)^1/2|| M with
    M = (||F|| sqrt(m) greatest + ||b||) / (1 - ||W||) >= ||h_k||, keeps them at or below zero for ever.

    Args:
        network: with a recurrent matrix of spectral norm below one.
        greatest: absolute value of any input.

    Raises:
        ValueError: the recurrent matrix is not contractive.
    """
    w = network.recurrent
    norm = float(torch.linalg.matrix_norm(w, 2))
    if norm >= 1:
        raise ValueError(f"the recurrent matrix has norm {norm:.4g}; it must be below 1")
    one, size = torch.eye(len(w), dtype=w.dtype), w.shape[0]
    right, below = _root(one - w @ w.T), _root(one - w.T @ w)
    entry_norm, bias_norm = torch.linalg.matrix_norm(network.entry, 2), torch.linalg.vector_norm(network.bias)
    bound = (entry_norm * network.entry.shape[1] ** 0.5 * greatest + bias_norm) / (1 - norm)
    down = -torch.linalg.matrix_norm(below, 2) * bound
    return ReluNetwork(
        recurrent=torch.cat([torch.cat([w, right], dim=1), torch.cat([below, -w.T], dim=1)]),
        entry=torch.cat([network.entry, torch.zeros_like(network.entry)]),
        bias=torch.cat([network.bias, down.expand(size)]),
        exit=torch.cat([network.exit, torch.zeros_like(network.exit)], dim=1),
        top=network.top,
    )


def _root(matrix: Tensor) -> Tensor:
    """The positive square root of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    return root
