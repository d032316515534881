"""The kernels of a GPU are the functions of models.nn.lookup, values and gradients; run by Triton's interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton comes with torch for GPUs")

from ciphershift.he_layers.layers.max_pool import RAMP
from ciphershift.models.nn import fused, lookup
from ciphershift.models.nn.activations import moments

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SILENT = torch.zeros(2, device=DEVICE)


def relative(mine: torch.Tensor, other: torch.Tensor) -> float:
    return float((mine - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("shape", [(6, 5, 4, 4), (70, 20)])
def test_a_look_up_without_noise_is_the_same_with_the_same_gradients(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (torch.randn(*shape, device=DEVICE) * 30).requires_grad_()
    vectors = [
        (torch.rand(shape[1], device=DEVICE) * width + least).requires_grad_()
        for width, least in ((0.01, 0.002), (0.1, 0.0), (0.1, 0.1))
    ]
    wide = [vector.view(1, -1, *[1] * (len(shape) - 2)) for vector in vectors]
    weights = torch.randn(*shape, device=DEVICE)
    expected = lookup.look_up(x, wide[0], wide[1], wide[2], 0, 31, 0.0, True)
    found = fused.look_up(x, vectors[0], vectors[1], vectors[2], 31, SILENT, torch.float32)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad((out * weights).sum(), [x, *vectors]) for out in (found, expected)]
    assert max(relative(mine, other) for mine, other in zip(*gradients, strict=True)) < 1e-5


@pytest.mark.parametrize("side", [4, 7])
def test_a_pool_without_noise_is_the_same_with_the_same_gradient(side: int) -> None:
    torch.manual_seed(0)
    x = (torch.randn(3, 5, side, side, device=DEVICE) * 30).requires_grad_()
    turns = torch.rand(5, device=DEVICE) * 0.003 + 0.001
    scale = turns.view(1, -1, 1, 1)
    expected = lookup.max_pool(x * scale, (2, 2), (2, 2), 0.0, 0.0) / scale
    found = fused.max_pool(x, turns, SILENT, RAMP)
    assert torch.allclose(found, expected, atol=1e-3)
    mine, other = (torch.autograd.grad(out.square().sum(), x)[0] for out in (found, expected))
    assert relative(mine, other) < 1e-5


def test_moments_have_the_same_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 4, 4, device=DEVICE, requires_grad=True)
    both = [
        torch.autograd.grad(variance.sum() * 2 + mean.square().sum(), x)[0]
        for variance, mean in (fused.moments(x), moments(x))
    ]
    assert relative(*both) < 1e-5


def test_the_noise_of_input_and_result_has_its_deviation() -> None:
    # 32 000 samples: known to 0.4 %, tolerance 2 %; a ramp of 0.2 turns has 3100 levels, so that 0.005 turns are 77.5 of them.
    x, ones = torch.zeros(4000, 8, device=DEVICE), torch.ones(8, device=DEVICE)

    def deviation(stds: tuple[float, float]) -> float:
        values = torch.tensor(stds, device=DEVICE)
        return float(fused.look_up(x, ones, ones * 0.1, ones * 0.2, 3100, values, torch.float32).std())

    assert deviation((0.005, 0.0)) == pytest.approx(77.5, rel=0.02)
    assert deviation((0.0, 0.5)) == pytest.approx(0.5, rel=0.02)
