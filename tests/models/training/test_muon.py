"""Muon over a network's weights is torch's Muon over matrices, however the weights lie in memory."""

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
