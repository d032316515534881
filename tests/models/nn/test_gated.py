"""Gated networks: what they compute, and that both are converted, with secret gates and with those of the client."""

import pytest
import torch
from torch import nn

from ciphershift.models.compiler.convert import before_rounding
from ciphershift.models.nn.gated import STEEPNESS, Gated

SAMPLES = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.Hardtanh(0.0, 1.0),
        nn.Flatten(),
        nn.Linear(48, 8),
        nn.Hardtanh(0.0, 1.0),
        nn.Linear(8, 3),
    )


def test_values_pass_gates_of_the_other_network() -> None:
    torch.manual_seed(0)
    gates, values = plain(), plain()
    network = Gated(gates, values, (1, 6, 6)).eval()
    first = gates[0](SAMPLES)
    second = gates[3](first.clamp(0, 1).flatten(1))
    state = values[0](SAMPLES) * torch.sigmoid(STEEPNESS * first)
    state = values[3](state.flatten(1)) * torch.sigmoid(STEEPNESS * second)
    assert torch.allclose(network(SAMPLES), values[5](state), atol=1e-5)


@pytest.mark.parametrize(("public", "lookups"), [(None, 48 * 4 + 8 * 3), ("gates", 2 * (48 + 8))])
def test_gated_networks_are_converted(public: str | None, lookups: int) -> None:
    torch.manual_seed(0)
    module = Gated(plain(), plain(), (1, 6, 6)).eval()
    network = before_rounding(module, SAMPLES, levels=255, max_outside=1e-3, public=public).network
    given = SAMPLES if network.stem is None else torch.tensor(network.stem.unit(SAMPLES.double().numpy())).float()
    with torch.no_grad():
        assert (network(given) - module(SAMPLES)).abs().mean() < 0.1 * module(SAMPLES).std()
    activations = [step for step in network.wiring.steps if step.name in network.wiring.owner]
    assert sum(torch.Size(step.shape).numel() for step in activations) == lookups
