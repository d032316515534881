"""Contractive recurrent layers: what the projection promises, and the unitary network that is the same."""

import pytest
import torch
from torch import Tensor, nn

from ciphershift.models.nn.recurrent import LIMIT, Recurrent, Steps, contracted
from ciphershift.models.nn.unitary import ReluNetwork, unitary


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.detach(), 2))


def _random_network(top: float) -> ReluNetwork:
    torch.manual_seed(0)
    return ReluNetwork(
        recurrent=contracted(torch.randn(12, 12).double(), 0.9),
        entry=torch.randn(12, 3).double(),
        bias=torch.randn(12).double(),
        exit=torch.randn(2, 12).double(),
        top=top,
    )


@pytest.mark.parametrize("top", [float("inf"), 1.0])
def test_a_unitary_network_with_twice_the_states_computes_the_same_over_1000_steps(top: float) -> None:
    network = _random_network(top)
    other = unitary(network, greatest=1.0)
    inputs = torch.rand(1000, 3, dtype=torch.float64) * 2 - 1
    assert torch.allclose(other.recurrent.T @ other.recurrent, torch.eye(24, dtype=torch.float64), atol=1e-12)
    assert (network.run(inputs) - other.run(inputs)).abs().max() < 1e-9
    assert network.run(inputs).abs().max() > 0.1


def test_a_network_that_is_not_contractive_has_no_unitary_form() -> None:
    network = _random_network(1.0)
    wide = ReluNetwork(recurrent=network.recurrent * 2, entry=network.entry, bias=network.bias, exit=network.exit)
    with pytest.raises(ValueError, match=r"norm 1\.8"):
        unitary(wide, greatest=1.0)


def test_the_projection_is_the_nearest_contractive_matrix_and_leaves_one_alone() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(8, 8)
    near = contracted(matrix, 0.95)
    assert _norm(near) <= 0.95 + 1e-5
    assert torch.equal(contracted(near * 0.9, 0.95), near * 0.9)
    scaled = matrix * 0.95 / _norm(matrix)
    assert (matrix - near).norm() < (matrix - scaled).norm()


@pytest.mark.parametrize("projected", [True, False], ids=["projected", "free"])
def test_gradients_over_200_steps_stay_within_the_bound_of_the_matrix_and_the_loss_falls(projected: bool) -> None:
    """The gradient by a state k steps before the end is at most ||U||^k times that by the last one, at the start and after training."""
    torch.manual_seed(0)
    cell, head = Recurrent(2, 8), nn.Linear(8, 1)
    x, y = torch.rand(16, 200, 2), torch.rand(16, 1)
    optimizer = torch.optim.Adam([*cell.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for step in range(12):
        states = [torch.zeros(16, 8, requires_grad=True)]
        for one in x.unbind(1):
            h = torch.relu(cell.input(one) + cell.state(states[-1]))
            h.retain_grad()
            states.append(h)
        loss = (head(states[-1]) - y).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        if step in (0, 11):
            norms = [float(h.grad.norm()) for h in states]  # type: ignore[union-attr]
            norm = _norm(cell.state.weight)
            assert norms[-1] > 0
            assert all(value <= norms[-1] * norm**k * 1.001 for k, value in enumerate(reversed(norms)))
        optimizer.step()
        if projected:
            cell.contract()
            assert _norm(cell.state.weight) <= LIMIT + 1e-5
    assert losses[-1] < losses[0]


def test_rows_of_images_and_places_of_series_are_steps() -> None:
    images, series = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 6)
    assert torch.equal(Steps()(images)[0, 2], images[0, :, 2].flatten())
    assert torch.equal(Steps(2)(series)[1, 1], series[1, :, 2:4].flatten())


def test_every_nth_state_is_given_the_last_one_among_them() -> None:
    torch.manual_seed(0)
    cell = Recurrent(2, 3)
    x = torch.rand(4, 7, 2)
    whole = cell(x)
    cell.every = 3
    assert torch.equal(cell(x), whole[:, [0, 3, 6]])
