"""Prediction and clock of one network, and sets against each other: what the records say, not how long anything takes."""

from pathlib import Path

import pytest

from ciphershift.benchmarks.networks import cost
from ciphershift.errors import WrongParamsError
from ciphershift.he_layers.program import Program


@pytest.fixture(autouse=True)
def models(tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_program.save(tmp_path / "tiny")
    monkeypatch.setenv("CIPHERSHIFT_MODELS", str(tmp_path))
    monkeypatch.setenv("CIPHERSHIFT_PARAMETER_SETS", "own")


def test_every_chain_of_layers_is_predicted_and_measured() -> None:
    result = cost.compare_with_prediction("tiny", repetitions=2)
    assert result["params"] == "TOY_N128"
    assert [layer["layer"] for layer in result["layers"]] == ["conv pool relu", "flatten", "dense"]
    for side in ("predicted_seconds", "measured_seconds"):
        assert result[side] == pytest.approx(sum(layer[side] for layer in result["layers"]), rel=0.2, abs=1e-3)


def test_sets_are_compared_round_by_round_with_the_first() -> None:
    names = ["TOY_N128_BLOCK3", "TOY_N128_SHARED2"]
    first, shared = cost.compare_sets("tiny", names, repetitions=3)
    assert [first["params"], shared["params"]] == names
    assert first["ratio"] == first["least_ratio"] == first["greatest_ratio"] == 1
    assert shared["ratio_to"] == "TOY_N128_BLOCK3"
    assert 0 < shared["least_ratio"] <= shared["ratio"] <= shared["greatest_ratio"]


def test_a_set_that_may_not_stand_in_is_refused() -> None:
    with pytest.raises(WrongParamsError, match="keys are under TOY_EXACT_N512"):
        list(cost.compare_sets("tiny", ["TOY_N128", "TOY_EXACT_N512"], repetitions=1))
