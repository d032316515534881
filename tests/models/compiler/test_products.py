"""Products of two values: gates, squeeze-and-excitation, two branches multiplied."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models import verification
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.cost_report import check

PIXELS = np.random.default_rng(0).integers(0, 256, (150, 1, 6, 6), dtype=np.uint8)
SAMPLES = torch.tensor(PIXELS).float() / 255


class Net(nn.Module):
    """Two convolutions, what is done with them, and a head."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], values: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        self.squeeze, self.excite, self.head = nn.Linear(4, 2), nn.Linear(2, 4), nn.Linear(values, 3)
        self.compute = forward

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.compute(self, x).flatten(1))
        return logits


def excited(self: Any, x: Tensor) -> Tensor:
    y = F.relu(self.norm(self.a(x)))
    gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
    product: Tensor = y * gate[:, :, None, None]
    return product


NETS: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "a gate": (lambda s, x: torch.tanh(s.a(x)) * torch.sigmoid(s.b(x)), 4 * 64),
    "sums times a gate": (lambda s, x: s.a(x) * torch.sigmoid(s.b(x)), 3 * 64),
    "two sums": (lambda s, x: s.norm(s.a(x)) * s.b(x), 2 * 64),
    "gated linear unit": (lambda s, x: F.glu(torch.cat([s.a(x), s.b(x)], 1), 1), 3 * 64),
    "squeeze and excitation": (excited, 2 * 64 + 64 + 2 + 4),
    "a series": (lambda s, x: F.relu(s.a(x)).flatten(2) * torch.sigmoid(s.b(x)).flatten(2), 4 * 64),
}


@pytest.mark.parametrize("name", NETS)
def test_a_product_is_two_look_ups(name: str) -> None:
    """`convert` holds it against the module's own product; with many levels the clipped ends of the squares are all that is left."""
    forward, lookups = NETS[name]
    module = Net(forward).eval()
    network = before_rounding(module, SAMPLES, levels=255, max_outside=1e-3).network
    with torch.no_grad():
        expected, found = module(SAMPLES).numpy(), network(SAMPLES).numpy()
    assert np.abs(found - expected).mean() < 0.06 * expected.std()
    report = check(module, (1, 6, 6), params="TOY_N128")
    assert report.cost is not None
    assert report.cost.lookups == lookups
    network.quantize(True)
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    with torch.no_grad():
        rounded = network(SAMPLES).numpy()
    assert np.abs(simulate.plain(program, PIXELS) * program.output.scale - rounded).mean() < 0.1 * rounded.std()


def test_a_product_is_evaluated_encrypted() -> None:
    """Two samples, three logits each, within five deviations of 20 simulated runs."""
    network = convert(Net(NETS["sums times a gate"][0]), SAMPLES, params="TOY_N128").eval()
    program = export(network, name="p", version="1", params="TOY_N128", classes=("a", "b", "c"))
    toy, rng = parameter_sets.get("TOY_N128"), np.random.default_rng(1)
    runs = np.stack([simulate.run(program, toy, PIXELS[:2], rng) for _ in range(20)])
    encrypted = np.stack(list(verification.encrypted_logits(program, PIXELS[:2], threads=1)))
    assert np.abs((encrypted - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5
