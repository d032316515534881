"""Power-of-two weights and their straight-through gradient."""

import torch
from torch.nn import functional

from models.shift import UNITS_PER_STD, ShiftConv2d, ShiftLinear, to_powers_of_two


def test_weights_become_the_nearest_power_of_two_or_zero() -> None:
    weights = torch.tensor([0.0, 0.4, -0.6, 1.4, 1.6, -2.9, 3.1, 5.9, -6.1, 40.0])
    assert to_powers_of_two(weights).tolist() == [0, 0, -1, 1, 2, -2, 4, 4, -8, 8]


def test_a_scale_per_channel_gives_small_channels_weights_too() -> None:
    layer = ShiftLinear(100, 2)
    with torch.no_grad():
        layer.weight[1] *= 1e-3
    layer.quantised = True
    spread = layer.integer_weight().pow(2).mean(1).sqrt()
    assert torch.allclose(spread, torch.full((2,), UNITS_PER_STD), rtol=0.2)


def test_the_gradient_passes_the_rounding() -> None:
    layer = ShiftConv2d(1, 2, 3)
    layer.quantised = True
    x = torch.rand(4, 1, 6, 6)
    layer(x).sum().backward()
    through = torch.autograd.grad(functional.conv2d(x, layer.weight / layer.scale()).sum(), layer.weight)[0]
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, through)
