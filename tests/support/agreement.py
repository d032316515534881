"""A network in training, its Program in simulation, and its Program encrypted: one noise."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.program import Program
from ciphershift.models import verification
from ciphershift.models.compiler.network import Network

FEW = 40


def require_one_noise(network: Network, program: Program, samples: Tensor, pixels: NDArray[np.uint8]) -> None:
    """Asserts that deviations in torch are those of the simulation, and that encrypted logits are drawn from the simulated ones.

    Two samples are evaluated encrypted; their logits lie within 6.5 deviations of 200 simulated runs.

    Args:
        network: in evaluation mode, with noise.
        program: its export, under TOY_N128.
        samples: inputs of the network, [count, ...].
        pixels: the same as bytes, [count, ...].
    """
    toy, rng = parameter_sets.get("TOY_N128"), np.random.default_rng(1)
    runs = np.stack([simulate.run(program, toy, pixels[:FEW], rng) for _ in range(20)])
    with torch.no_grad():
        in_torch = np.stack([network(samples[:FEW]).numpy() for _ in range(20)])
    assert in_torch.std(axis=0).mean() == pytest.approx(runs.std(axis=0).mean(), rel=0.15)
    encrypted = np.stack(list(verification.encrypted_logits(program, pixels[:2], threads=1)))
    two = np.stack([simulate.run(program, toy, pixels[:2], rng) for _ in range(200)])
    assert np.abs((encrypted - two.mean(axis=0)) / two.std(axis=0)).max() < 6.5
