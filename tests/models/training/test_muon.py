"""Muon over a network's weights is torch's Muon over matrices, however the weights lie in memory."""

from typing import Any

import pytest
import torch
from torch import nn

from ciphershift.models.training.muon import MOMENTUM, VECTOR_RATE, Muon

RATE, DECAY, STEPS = 0.05, 0.01, 3


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_convolutions_take_the_steps_of_their_matrices(order: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 6), nn.Linear(6, 2))
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    matrices = {name: nn.Parameter(expected[name].flatten(1)) for name in ("0.weight", "2.weight")}
    others = {name: nn.Parameter(value) for name, value in expected.items() if name not in matrices}
    references = (
        torch.optim.Muon(matrices.values(), lr=RATE, weight_decay=DECAY, momentum=MOMENTUM),
        torch.optim.AdamW(others.values(), lr=VECTOR_RATE, weight_decay=0.0),
    )
    network.to(memory_format=order)  # type: ignore[call-overload]
    optimizer = Muon(network.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        network(torch.rand(5, 3, 4, 4).contiguous(memory_format=order)).pow(2).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            reference = (matrices | others)[name]
            reference.grad = parameter.grad.reshape(reference.shape).clone()
        optimizer.step()
        for part in references:
            part.step()
    for name, parameter in network.named_parameters():
        # Newton and Schulz multiply in bfloat16 and sum in another order.
        assert torch.allclose(parameter, (matrices | others)[name].view(parameter.shape), atol=RATE / 20), name


def test_rows_of_length_one_turn_and_do_not_grow() -> None:
    torch.manual_seed(0)
    network: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 6), nn.Linear(6, 2))
    before = [network[0].weight.detach().clone(), network[3].weight.detach().clone()]
    optimizer = Muon(network.parameters(), lr=RATE, weight_decay=0.0, unit_rows=True)
    for _ in range(STEPS):
        optimizer.zero_grad()
        network(torch.rand(5, 3, 4, 4)).pow(2).sum().backward()
        optimizer.step()
    for layer in (network[0], network[2]):
        assert torch.allclose(layer.weight.flatten(1).norm(dim=1), torch.ones(len(layer.weight)), atol=1e-5)
    # The last layer goes by AdamW: its rows keep their length but for three steps.
    last = network[3].weight.detach()
    assert torch.allclose(last, before[1], atol=1.1 * STEPS * VECTOR_RATE)
    cosine = torch.cosine_similarity(network[0].weight.detach().flatten(1), before[0].flatten(1), dim=1)
    assert bool((cosine < 0.9999).all() and (cosine > 0.9).all())
