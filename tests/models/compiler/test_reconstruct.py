"""Weights are rounded on the calibration data: nearer to the module than by rounding each alone, and the same every time."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.he_layers.analysis import windows
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models.compiler import rounding
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, ShiftWeights, to_powers_of_two
from tests.support.networks import Residual, settled

TOY = parameter_sets.get("TOY_N128")


def smooth(count: int, seed: int) -> Tensor:
    """Images whose neighboring pixels are alike, as those of photographs: [count, 1, 12, 12] in [0, 1]."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(coarse, size=(12, 12), mode="bilinear")


SAMPLES, OTHERS = smooth(200, 0), smooth(100, 1)


def ordinary() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    ).eval()


def distance(network: Network, module: nn.Module) -> float:
    """Mean squared error of the logits of images that were not calibrated on, beside their variance."""
    with torch.no_grad():
        expected = module(OTHERS)
        return float(((network.eval()(OTHERS) - expected) ** 2).mean() / expected.var(0).mean())


def test_it_is_nearer_to_the_module_than_rounding_each_weight() -> None:
    module = ordinary()
    nearest = before_rounding(module, SAMPLES, params="TOY_N128").network
    nearest.quantize(True)
    reconstructed = convert(module, SAMPLES, params="TOY_N128")
    reconstructed.noise = None
    assert distance(reconstructed, module) < 0.3 * distance(nearest, module)


def test_it_is_the_same_every_time_and_leaves_the_random_state() -> None:
    module, found = settled(Residual), []
    data = torch.rand(60, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(convert(module, data, params="TOY_N128").state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("kind", ["dense", "grouped"])
def test_no_channel_is_worse_than_rounded_alone(kind: str) -> None:
    torch.manual_seed(0)
    layer: ShiftConv2d | ShiftLinear
    if kind == "dense":
        layer, x = ShiftLinear(20, 6), torch.randn(300, 20) @ torch.randn(20, 20)
    else:
        layer, x = (
            ShiftConv2d(4, 6, (3, 3), padding=(1, 1), groups=2),
            smooth(80, 3).expand(-1, 4, -1, -1) * torch.rand(4, 1, 1),
        )
    with torch.no_grad():
        wanted = layer(x)
        known = rounding.moments(layer, x, wanted)
        alone = to_powers_of_two(layer.weight / layer.scale(), layer.exponents) * layer.scale()
        rounding.choose(layer, known)
        layer.quantized = True
        chosen = layer.integer_weight() * layer.scale()

    def loss(weight: Tensor) -> Tensor:
        flat = weight.double().view(*known.sums.shape)
        return ((flat @ known.inputs * flat).sum(-1) - 2 * (flat * known.sums).sum(-1)).flatten()

    assert bool((loss(chosen) <= loss(alone) + 1e-9).all())
    assert bool((loss(chosen) < loss(alone) - 1e-6).any())


def test_weights_that_are_powers_of_two_stay_what_they_are() -> None:
    layer, integers = ShiftLinear(12, 3), torch.tensor([1.0, -2, 4, 8, 0, 2, -8, 1, 4, -1, 0, 2]).repeat(3, 1)
    scale = torch.tensor([0.3, 0.02, 1.7])
    with torch.no_grad():
        layer.take(integers * scale.view(-1, 1), scale * 1.1)
        x = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
        rounding.choose(layer, rounding.moments(layer, x, layer(x)))
        layer.quantized = True
        assert torch.equal(layer.integer_weight(), integers)
        assert torch.allclose(layer.scale().flatten(), scale)


@pytest.mark.parametrize("function", [torch.tanh, torch.square, torch.relu], ids=lambda f: f.__name__)
def test_rounded_sums_keep_the_window(function: torch.nn.Module) -> None:
    """Measured on the Program, with noise: the share that was asked for, and what values near the edge move by noise."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(function(self.first(x)))
            return result

    pixels = np.random.default_rng(0).integers(0, 256, (300, 8), dtype=np.uint8)
    network = convert(Net().eval(), pixels / 255, params="TOY_N128").eval()
    program = export(network, name="p", version="1", params="TOY_N128", classes=("a", "b", "c"))
    for window in windows.measure(program, TOY, pixels, np.random.default_rng(0)):
        assert window.outside < 0.015, window


def test_weights_that_are_not_there_stay_away() -> None:
    torch.manual_seed(0)
    layer, x = ShiftLinear(20, 6), torch.randn(300, 20) @ torch.randn(20, 20)
    with torch.no_grad():
        layer.weight[:3, 10:] = 0
        layer.weight[3:, :10] = 0
        gone = layer.weight == 0
        rounding.choose(layer, rounding.moments(layer, x, layer(x)))
    layer.quantized = True
    assert not bool(layer.integer_weight()[gone].any())
    assert bool(layer.integer_weight()[~gone].any())


@pytest.mark.parametrize("limit", ["MOST_INPUTS", "MOST_WORK"])
def test_wide_layers_are_rounded_weight_by_weight(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, limit, 3)
    found = convert(ordinary(), SAMPLES, params="TOY_N128")
    nearest = before_rounding(ordinary(), SAMPLES, params="TOY_N128").network
    nearest.quantize(True)
    weights = [[layer.integer_weight() for layer in network.of_type(ShiftWeights)] for network in (found, nearest)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
