"""Random graphs of supported operations: the module, the converted network before rounding, and its Program in the clear."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.errors import UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.models.compiler.convert import before_rounding
from ciphershift.models.compiler.export import export

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 2, 8, 8), dtype=np.uint8)
SAMPLES = torch.tensor(PIXELS).float() / 255
ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    *(F.relu, F.relu6, F.hardtanh, F.gelu, F.silu, F.elu, torch.tanh, torch.sigmoid),
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: x * torch.sigmoid(2 * x) - 0.1,
)
KINDS = ("plain", "normed", "strided", "residual", "joined", "gated", "max", "average", "moved", "shifted")


class Random(nn.Module):
    """Steps by name, each with an activation; their weights follow from the seed."""

    def __init__(self, steps: list[tuple[str, int]], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps, self.parts = steps, nn.ModuleList()
        channels, side = 2, 8
        for kind, _ in steps:
            outputs = channels if kind in ("residual", "gated") else 3
            norm: nn.Module = nn.BatchNorm2d(outputs) if kind == "normed" else nn.Identity()
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, -1.5, 1.5)
            strided = kind == "strided" and side > 2
            self.parts.append(nn.Sequential(nn.Conv2d(channels, outputs, 3, 2 if strided else 1, 1), norm))
            channels = channels + outputs if kind == "joined" else outputs
            side = side // 2 if strided or (kind in ("max", "average") and side > 2) else side
        self.head = nn.Linear(channels * side * side, 3)

    def forward(self, x: Tensor) -> Tensor:
        for (kind, choice), part in zip(self.steps, self.parts, strict=True):
            found = ACTIVATIONS[choice](part(x))
            if kind == "residual":
                found = x + found
            elif kind == "joined":
                found = torch.cat([x, found], dim=1)
            elif kind == "gated":
                found = x * torch.sigmoid(part(x))
            elif kind == "max" and x.shape[-1] > 2:
                found = F.max_pool2d(found, 2)
            elif kind == "average" and x.shape[-1] > 2:
                found = F.avg_pool2d(found, 2)
            elif kind == "moved":
                found = found.flip(3).roll(1, 2)
            elif kind == "shifted":
                found = 0.5 * found
            x = found
        logits: Tensor = self.head(x.flatten(1))
        return logits


GRAPHS = given(
    steps=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, len(ACTIVATIONS) - 1)), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
)


def agrees(steps: list[tuple[str, int]], seed: int) -> None:
    """`convert` holds every step against the module's; what may differ are the clipped ends of ramps, which add up over the steps."""
    module = Random(steps, seed).eval()
    try:
        network = before_rounding(module, SAMPLES, levels=255, max_outside=1e-3).network
    except UnsupportedLayerError:  # a finding, as of a padding after a shift
        reject()
    with torch.no_grad():
        expected, found = module(SAMPLES).numpy(), network(SAMPLES).numpy()
        assert np.abs(found - expected).mean() < 0.15 * expected.std() + 1e-5
        network.quantize(True)
        rounded = network(SAMPLES).numpy()
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    plain = simulate.plain(program, PIXELS) * program.output.scale
    # Biases become integers, tables have 256 steps: some activations move by a level of 255.
    assert np.abs(plain - rounded).mean() < 0.15 * rounded.std() + 1e-5


FEW = settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@GRAPHS
@FEW
def test_a_few_random_graphs(steps: list[tuple[str, int]], seed: int) -> None:
    agrees(steps, seed)


@pytest.mark.slow
@GRAPHS
@settings(FEW, max_examples=60)
def test_sixty_random_graphs(steps: list[tuple[str, int]], seed: int) -> None:
    agrees(steps, seed)
