"""Limits of seconds and points choose the conversion; what cannot be kept is an error that says by how much."""

import pytest
import torch
from torch import nn

from ciphershift.errors import OverBudgetError
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models.compiler.convert import convert

SAMPLES = torch.rand(120, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_what_was_asked_for_is_taken_where_it_keeps_to_the_limits(module: nn.Module) -> None:
    network = convert(module, SAMPLES, params="TOY_N128", exponents=5, max_drop=100.0, max_seconds=100.0)
    assert (network.params, network.exponents, network.levels) == ("TOY_N128", 5, 31)


def test_finer_numbers_are_taken_where_coarse_ones_lose_too_much(module: nn.Module) -> None:
    judged = (SAMPLES, module(SAMPLES).argmax(1).numpy())
    network = convert(module, SAMPLES, params="TOY_N128", exponents=1, levels=1, max_drop=8.0, validation=judged)
    assert network.exponents > 1
    assert network.levels > 1


@pytest.mark.slow  # converts again and again
def test_without_a_limit_of_points_the_best_of_the_fast_ones_is_taken(module: nn.Module) -> None:
    network = convert(module, SAMPLES, params="TOY_N128", exponents=1, levels=1, max_seconds=100.0)
    assert network.exponents > 1


def test_a_limit_that_cannot_be_kept_says_by_how_much(module: nn.Module) -> None:
    with pytest.raises(OverBudgetError, match=r"s more than max_seconds = 1e-09; use more threads"):
        convert(module, SAMPLES, max_seconds=1e-9)
    with pytest.raises(OverBudgetError, match=r"loses .* points: .* more than max_drop = -200"):
        convert(module, SAMPLES, params="TOY_N128", max_drop=-200.0)


@pytest.mark.slow  # converts again and again
def test_numbers_lose_points_of_their_explained_variance() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 1)).eval()
    with pytest.raises(OverBudgetError, match="loses"):
        convert(module, SAMPLES, max_drop=-200.0, params="TOY_N128")
    targets = module(SAMPLES)[:, 0].double().detach().numpy()
    network = convert(module, SAMPLES, params="TOY_N128", max_drop=20.0, validation=(SAMPLES, targets))
    assert network.params in parameter_sets.SETS
