"""Limits of seconds and points choose the conversion; what cannot be kept is an error that says by how much."""

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.errors import BadCalibrationError, OverBudgetError
from ciphershift.models.compiler import budget
from ciphershift.models.compiler.budget import Budget, Choice
from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.network import Network

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


def test_smaller_weights_are_taken_where_they_lose_less(module: nn.Module) -> None:
    """As those of an LSTM do (docs/decisions/0201)."""

    def make(choice: Choice) -> Network:
        return convert(module, SAMPLES, params=choice.params, exponents=choice.exponents, levels=choice.levels)

    first = Choice(params="TOY_N128", exponents=4, levels=31)
    network = budget.within(Budget(max_drop=1.0), first, make, lambda made: 5.0 * abs(made.exponents - 3))
    assert (network.params, network.exponents) == ("TOY_N128", 3)


def test_another_set_is_taken_where_the_one_that_was_asked_for_is_too_slow(
    module: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {name: 1.0 + place for place, name in enumerate(budget.SETS)} | {"FAST_N512_BLOCK4": 0.5, "TOY_N128": 9.0}
    monkeypatch.setattr(budget, "_seconds", lambda *_: seconds)
    network = convert(module, SAMPLES, params="TOY_N128", max_seconds=0.7, max_drop=100.0)
    assert network.params == "FAST_N512_BLOCK4"


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
    assert network.params == "TOY_N128"


@pytest.mark.parametrize(
    ("targets", "what"),
    [
        (np.zeros(119, dtype=np.int64), "119 targets for 120 samples"),
        (np.zeros((120, 1)), r"shape \[120, 1\]"),
        (["a"] * 120, "no numbers"),
        (np.full(120, np.nan), "NaN"),
        (np.full(120, 3), "class 3.* 3 outputs"),
        (np.full(120, -1), "class -1"),
        (np.zeros(120), "one output"),
    ],
)
def test_targets_that_do_not_fit_are_said_so(module: nn.Module, targets: object, what: str) -> None:
    with pytest.raises(BadCalibrationError, match=what):
        convert(module, SAMPLES, params="TOY_N128", max_drop=5.0, validation=(SAMPLES, targets))  # type: ignore[arg-type]
    with pytest.raises(BadCalibrationError, match="no pair"):
        convert(module, SAMPLES, params="TOY_N128", max_drop=5.0, validation=SAMPLES)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.bool])
def test_labels_of_any_whole_type_are_taken(module: nn.Module, kind: torch.dtype) -> None:
    labels = (module(SAMPLES).argmax(1) > 0).to(kind)
    network = convert(module, SAMPLES, params="TOY_N128", max_drop=100.0, validation=(SAMPLES, labels))
    assert network.params == "TOY_N128"


class Both(nn.Module):
    """Two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body, self.kind, self.size = nn.Linear(10, 12), nn.Linear(12, 3), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """[B, 10] -> [B, 3] and [B, 2]."""
        hidden = torch.relu(self.body(x))
        return {"kind": self.kind(hidden), "size": self.size(hidden)}


def test_several_outputs_lose_of_their_explained_variance_and_take_no_labels() -> None:
    both = Both().eval()
    network = convert(both, SAMPLES, exponents=1, levels=1, max_drop=20.0)
    assert network.levels > 1
    with pytest.raises(BadCalibrationError, match="several outputs"):
        convert(both, SAMPLES, params="TOY_N128", max_drop=5.0, validation=(SAMPLES, np.zeros(120, dtype=np.int64)))
