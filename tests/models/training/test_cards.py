"""Cards: what is measured in parts is what is measured at once, and whoever watches sees every part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.errors import UnreadableDataError
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.recurrence import certificates
from ciphershift.models.progress import Step
from ciphershift.models.training import cards, data
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import accuracy
from ciphershift.models.training.recipes import RECIPES
from tests.he_layers.test_recurrence import FEATURES, STEPS, WEIGHTS, network, with_weights

NAME = "mnist-tiny"


@pytest.fixture(scope="module")
def digits() -> Split:
    try:
        return data.load("mnist").test.part(0, 2 * cards.PART + 100)
    except UnreadableDataError as error:
        pytest.skip(f"no MNIST here: {error}")


def test_parts_give_what_the_whole_gives(digits: Split) -> None:
    program = Program.load(cards.ZOO / NAME)
    baseline = cards.load_baseline(RECIPES[NAME].module(), cards.ZOO / NAME)
    parts = digits.parts(cards.PART)
    assert [len(part.labels) for part in parts] == [cards.PART, cards.PART, 100]
    assert cards.measure(program, baseline, parts) == cards.measure(program, baseline, [digits])


def test_what_half_precision_cannot_hold_is_kept_as_it_is(digits: Split, tmp_path: Path) -> None:
    program, recipe = Program.load(cards.ZOO / NAME), RECIPES[NAME]
    baseline = cards.load_baseline(recipe.module(), cards.ZOO / NAME)
    norm = next(part for part in baseline.modules() if isinstance(part, nn.BatchNorm2d))
    assert norm.running_var is not None and norm.running_mean is not None and norm.weight is not None
    with torch.no_grad():  # the same function, in other units
        conv = next(part for part in baseline.modules() if isinstance(part, nn.Conv2d))
        conv.weight *= 1024
        norm.running_mean *= 1024
        norm.running_var *= 1024**2
        norm.eps *= 1024**2
    assert norm.running_var.max() > 65504
    test = digits.part(0, 100)
    before = accuracy(baseline, test)
    (tmp_path / cards.CARD_FILE).write_text("of another network")

    def halfway(stage: str, step: Step) -> None:
        assert not (tmp_path / cards.CARD_FILE).exists(), "while its figures are not known"

    card = cards.write(
        tmp_path,
        program,
        baseline,
        source_of_data={"dataset": "mnist"},
        module_source=NAME,
        training={},
        made_by="a test",
        validation=None,
        test=test,
        show=halfway,
    )
    assert abs(card["accuracy_float"] - before) <= 0.01
    again = recipe.module()
    next(part for part in again.modules() if isinstance(part, nn.BatchNorm2d)).eps = norm.eps
    assert accuracy(cards.load_baseline(again, tmp_path), test) == card["accuracy_float"] > 0.9


def test_whoever_watches_sees_every_part(digits: Split, tmp_path: Path) -> None:
    seen: list[tuple[str, Step]] = []
    card = cards.write(
        tmp_path,
        Program.load(cards.ZOO / NAME),
        cards.load_baseline(RECIPES[NAME].module(), cards.ZOO / NAME),
        source_of_data={"dataset": "mnist"},
        module_source=NAME,
        training={},
        made_by="a test",
        validation=digits.part(0, 100),
        test=digits,
        show=lambda stage, step: seen.append((stage, step)),
    )
    assert [(stage, step.done, step.total) for stage, step in seen] == [
        ("test images", 500, 1100),
        ("test images", 1000, 1100),
        ("test images", 1100, 1100),
        ("validation images", 100, 100),
    ]
    assert card["accuracy_simulated"] > 0.95
    assert cards.read(tmp_path)["validation"] == card["validation"]


def test_what_brings_terms_of_a_sum_to_one_scale_is_no_layer_of_the_topology() -> None:
    program = Program.load(cards.ZOO / "mnist-gated")
    kinds = [stage.layer.kind for stage in program.stages]
    stated = [layer["layer"] for layer in cards.topology(program)]
    assert (kinds.count("conv"), stated.count("conv")) == (9, 2)
    assert [kind for kind in kinds if kind != "conv"] == [kind for kind in stated if kind != "conv"]


def test_a_card_states_the_weights_of_a_certificate_that_has_some(tmp_path: Path) -> None:
    program = with_weights(network())
    images = np.random.default_rng(0).integers(0, 256, (20, STEPS, FEATURES), dtype=np.uint8)
    for one, weights in ((program, list(WEIGHTS)), (replace(program, recurrent=certificates(program)), None)):
        cards.write(
            tmp_path,
            one,
            nn.Sequential(nn.Flatten(), nn.Linear(STEPS * FEATURES, 2)).eval(),
            source_of_data={"dataset": "none"},
            module_source="none",
            training={},
            made_by="a test",
            validation=None,
            test=Split(images=images, labels=np.arange(20) % 2),
            show=lambda stage, step: None,
        )
        (stated,) = cards.read(tmp_path)["recurrent"]
        assert stated.get("weights") == weights
        assert max(stated["measured"]) <= stated["bound"] == pytest.approx(stated["fresh"] * stated["error_bound"])
