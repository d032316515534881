"""Power-of-two weights and their straight-through gradient."""

import torch
from torch.nn import functional

from ciphershift.models.nn.shift import ShiftConv2d, ShiftLinear, WholeLinear, to_powers_of_two


def test_weights_become_the_nearest_power_of_two_or_zero() -> None:
    weights = torch.tensor([0.0, 0.4, -0.6, 1.4, 1.6, -2.9, 3.1, 5.9, -6.1, 40.0])
    assert to_powers_of_two(weights, 4).tolist() == [0, 0, -1, 1, 2, -2, 4, 4, -8, 8]
    assert to_powers_of_two(weights, 2).tolist() == [0, 0, -1, 1, 2, -2, 2, 2, -2, 2]
    assert to_powers_of_two(weights, 6).tolist() == [0, 0, -1, 1, 2, -2, 4, 4, -8, 32]


def test_a_scale_per_channel_gives_small_channels_weights_too() -> None:
    layer = ShiftLinear(100, 2)
    with torch.no_grad():
        layer.weight[1] *= 1e-3
    layer.quantized = True
    spread = layer.integer_weight().pow(2).mean(1).sqrt()
    assert torch.allclose(spread, torch.full((2,), 2.5), rtol=0.2)  # 8, the greatest, stands at 3.2 deviations


def test_the_gradient_passes_the_rounding() -> None:
    layer = ShiftConv2d(1, 2, (3, 3))
    layer.quantized = True
    x = torch.rand(4, 1, 6, 6)
    layer(x).sum().backward()
    through = torch.autograd.grad(functional.conv2d(x, layer.weight / layer.scale()).sum(), layer.weight)[0]
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, through)


def test_sums_keep_their_unit_when_the_weights_of_a_referring_layer_grow() -> None:
    layer = ShiftLinear(1000, 3)
    reference = torch.tensor([0.01, 0.1, 1.0])
    layer.refer_to(reference)
    layer.quantized = True
    x = torch.randn(500, 1000)
    for growth in (1.0, 4.3):
        with torch.no_grad():
            layer.weight *= growth
        found, expected = (layer(x) * reference).detach(), functional.linear(x, layer.weight).detach()
        assert torch.allclose((found * expected).mean(0) / (expected**2).mean(0), torch.ones(3), atol=0.15)
        powers = torch.log2(layer.unit_weight()[layer.unit_weight() != 0].abs())
        assert torch.equal(powers, powers.round())


def test_a_learned_scale_brings_rounded_sums_nearer_to_the_float_ones_and_is_kept() -> None:
    torch.manual_seed(0)
    layer = ShiftLinear(64, 3, exponents=2)
    with torch.no_grad():
        layer.weight[0, :4] *= 20  # clipped, and in need of a greater scale
    layer.quantized = True
    x = torch.randn(200, 64)
    wanted = functional.linear(x, layer.weight).detach()

    def error() -> torch.Tensor:
        return (layer(x) * layer.scale().view(-1) - wanted).pow(2).mean(0)

    before = error().detach()
    layer.learn_clip(True)
    assert layer.clip is not None
    assert torch.equal(error().detach(), before)
    optimizer = torch.optim.Adam([layer.clip], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        error().sum().backward()
        optimizer.step()
    after, sums = error().detach(), layer(x).detach()
    assert (after < before).all()
    assert after[0] < 0.7 * before[0]
    layer.learn_clip(False)
    assert layer.clip is None
    assert torch.allclose(layer(x), sums)
    assert torch.allclose(error(), after, rtol=1e-4)


def test_only_a_free_scale_is_learned() -> None:
    referring = ShiftLinear(8, 2)
    referring.refer_to(torch.ones(2))
    for layer in (referring, WholeLinear(8, 2)):
        layer.learn_clip(True)
        assert layer.clip is None
