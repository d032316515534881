"""What a conversion loses: on folds of a table that comes with the project."""

from pathlib import Path
from statistics import mean

import pytest
from torch import nn

from ciphershift.benchmarks.networks import conversion
from ciphershift.errors import ConfigurationError
from ciphershift.models.training.recipes import RECIPES, Recipe


@pytest.mark.slow  # trains
def test_losses_are_those_of_each_fold_against_its_own_float_network(tmp_path: Path) -> None:
    found = conversion.measure("german-credit", repeats=2, work=tmp_path, show=lambda *_: None)
    assert found["folds"] and len(found["repeats"]) == 2
    assert {stage for each in found["repeats"] for stage in each} == set(conversion.STAGES)
    assert all(0.6 < each[stage] < 0.9 for each in found["repeats"] for stage in conversion.STAGES)
    assert found["repeats"][0] != found["repeats"][1]
    for stage in ("converted", "tuned"):
        lost = mean(100 * (each["float"] - each[stage]) for each in found["repeats"])
        assert found["loss_points"][stage] == pytest.approx(lost, abs=0.02)


def test_an_ordinary_network_does_not_clip() -> None:
    recipe = RECIPES["chest-xray"]
    assert isinstance(recipe, Recipe)
    kinds = [type(part) for part in conversion.ordinary(recipe.module()).modules()]
    assert nn.Hardtanh not in kinds and kinds.count(nn.ReLU) == 3


@pytest.mark.parametrize("name", ["mnist-exact", "no-such-recipe"])
def test_other_recipes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no recipe of the fast profile; one of mnist-tiny"):
        conversion.measure(name, repeats=2, work=tmp_path, show=lambda *_: None)
