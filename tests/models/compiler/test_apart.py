"""Values that would drown in noise on the scale that they share get one of their own: the input, read again, and pooled levels."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from tests.support.architectures import Net

PARAMS = "FAST_N512_BLOCK3"


class GatedByInput(nn.Module):
    """Of 212 features the last 16 let a second layer's values through; the first layer's sums of 196 features are large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(196, 32), nn.Linear(32, 16), nn.Linear(16, 3)
        self.first.weight.data.abs_()
        self.first.bias.data.sub_(0.9)

    def forward(self, x: Tensor) -> Tensor:
        states = F.relu(self.first(x[:, :196]) * x[:, :32])
        logits: Tensor = self.head(self.second(states) * x[:, 196:])
        return logits


class Skip(nn.Module):
    """The input is read once more, but its scale suits both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.past = nn.Linear(196, 16), nn.Linear(16, 12), nn.Linear(196, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.second(F.relu(self.first(x))) + self.past(x)))
        return logits


def converted(module: nn.Module, samples: Tensor) -> tuple[int, float]:
    """Look-ups, and the least correlation of a noisy logit with the module's."""
    network = convert(module.eval(), samples, params=PARAMS).eval()
    lookups = export(network, name="p", version="1", params=PARAMS, classes=("a", "b", "c")).lookups
    with torch.no_grad():
        expected, found = module(samples).numpy().T, network(samples).numpy().T
    return lookups, min(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(expected, found, strict=True))


def test_gates_from_the_input_do_not_drown(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, samples = GatedByInput(), torch.rand(400, 1) * torch.rand(400, 212)
    lookups, correlation = converted(module, samples)
    assert lookups == 2 * 32 + 32 + 2 * 16 + 16  # two for each product, the states, and the gates that are read again
    assert correlation > 0.85
    monkeypatch.setattr("ciphershift.models.compiler.convert.drowned", lambda network, noise: False)
    without, noisy = converted(module, samples)
    assert (without, noisy < 0.8) == (lookups - 16, True)


def test_what_has_room_costs_no_look_up() -> None:
    torch.manual_seed(0)
    lookups, correlation = converted(Skip(), torch.rand(400, 196) ** 2)
    assert lookups == 16 + 12
    assert correlation > 0.9


def joined(s: Any, x: Tensor) -> Tensor:
    """As in GoogLeNet and SqueezeNet: maps of two kernels, joined and pooled."""
    pooled = F.max_pool2d(torch.cat([F.relu(s.a(x)), F.relu(s.b(x))], 1), 3, 2, 1)
    return torch.as_tensor(s.head(F.relu(s.c(pooled)).flatten(1)))


def summed(s: Any, x: Tensor) -> Tensor:
    return torch.as_tensor(s.head(F.relu(s.c(F.max_pool2d(F.relu(s.a(x)) + F.relu(s.b(x)), 2))).flatten(1)))


def averaged(s: Any, x: Tensor) -> Tensor:
    return torch.as_tensor(s.head(F.relu(s.c(F.max_pool2d(F.avg_pool2d(F.relu(s.a(x)), 2), 2))).flatten(1)))


def raw(s: Any, x: Tensor) -> Tensor:
    return torch.as_tensor(s.head(F.relu(s.a(F.max_pool2d(x, 2).flatten(1)))))


def conv(inputs: int, maps: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, maps, kernel, padding=kernel // 2)


POOLED = {
    "joined": (lambda: Net(joined, a=conv(1, 6, 3), b=conv(1, 6, 5), c=conv(12, 8, 3), head=nn.Linear(512, 3)), 16),
    "summed": (lambda: Net(summed, a=conv(1, 6, 3), b=conv(1, 6, 5), c=conv(6, 8, 3), head=nn.Linear(512, 3)), 16),
    "averaged": (lambda: Net(averaged, a=conv(1, 6, 3), c=conv(6, 8, 3), head=nn.Linear(128, 3)), 16),
    "raw": (lambda: Net(raw, a=nn.Linear(256, 48), head=nn.Linear(48, 3)), 32),
}


def pooled(name: str) -> tuple[int, float]:
    torch.manual_seed(0)
    make, side = POOLED[name]
    module, samples = make(), F.interpolate(torch.rand(200, 1, 4, 4), size=(side, side), mode="bilinear")
    for weight in module.parameters():
        if weight.dim() > 1:
            nn.init.kaiming_normal_(weight)
    return converted(module, samples)


@pytest.mark.parametrize("name", POOLED)
def test_pooled_levels_do_not_drown(name: str) -> None:
    """A pool behind joined activations goes before them; behind anything else a look-up follows it."""
    lookups, correlation = pooled(name)
    assert correlation > 0.75
    assert name != "joined" or lookups == 12 * (8 * 16 * 2 + 8 * 8 * 2 + 8 * 8) + 8 * 8 * 8


def test_pooled_sums_would_drown_on_the_scale_of_the_next_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciphershift.models.compiler.apart.LOUD_POOL", float("inf"))
    assert pooled("summed")[1] < 0.65


class Steps(nn.Module):
    """A recurrent network of four ReLU states, written as a loop over five steps."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.states, self.inputs, self.head = nn.Linear(4, 4, bias=False), nn.Linear(3, 4), nn.Linear(4, 3)
        self.states.weight.data *= 0.5
        self.inputs.weight.data *= scale
        self.inputs.bias.data.abs_().add_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        state = F.relu(self.inputs(x[:, :, 0]))
        for step in range(1, 5):
            state = F.relu(self.inputs(x[:, :, step]) + self.states(state))
        logits: Tensor = self.head(state)
        return logits


@pytest.mark.parametrize("scale", [0.075, 0.05])
def test_steps_that_share_their_weights_stay_one_layer(scale: float) -> None:
    """However small the input is beside the states."""
    torch.manual_seed(1)
    module, samples = Steps(scale).eval(), torch.rand(160, 3, 5)
    network = before_rounding(module, samples, params="FAST_N512").network
    assert (len(network.wiring.ties), network.contractive) == (14, True)
    with torch.no_grad():
        expected, found = module(samples).numpy(), network(samples).numpy()
    assert np.abs(found - expected).mean() < 0.02 * expected.std(axis=0).mean()
