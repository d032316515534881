"""A recipe followed from nothing, with validation images kept out and without, on few digits."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ciphershift.errors import ProgramError, StaleCheckpointError, UnreadableDataError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.models.cli import app
from ciphershift.models.compiler.budget import Budget
from ciphershift.models.nn.views import BothViews
from ciphershift.models.nn.whitening import Whitening
from ciphershift.models.progress import Step
from ciphershift.models.training import cards
from ciphershift.models.training.cards import load_baseline
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.pipeline import train_recipe
from ciphershift.models.training.recipes import RECIPES, Conversion, ConvSpec, Recipe, StemSpec
from ciphershift.models.training.sets import VALIDATION_IMAGES, Splits
from ciphershift.models.training.teacher import TeacherSpec

SHORT = Phase(epochs=1, learning_rate=4e-3, batch=50)
IMAGES = 600


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    tiny = RECIPES["mnist-tiny"]
    assert isinstance(tiny, Recipe)
    return replace(tiny, float_phase=SHORT, conversion=Conversion(phases={"noisy": SHORT}))


def splits(*, everything: bool) -> Splits:
    try:
        return Splits.load("mnist", everything=everything)
    except UnreadableDataError as error:
        pytest.skip(f"no MNIST here: {error}")


def test_every_training_image_is_in_one_split() -> None:
    kept, whole = splits(everything=False), splits(everything=True)
    assert whole.validation is None
    assert kept.validation is not None
    assert len(kept.validation.labels) == VALIDATION_IMAGES
    assert len(kept.train.labels) + VALIDATION_IMAGES == len(whole.train.labels)
    assert (whole.train.labels[-VALIDATION_IMAGES:] == kept.validation.labels).all()


@pytest.mark.parametrize("everything", [False, True])
def test_the_card_says_what_was_kept_out(recipe: Recipe, tmp_path: Path, everything: bool) -> None:
    all_images = splits(everything=everything)
    few = replace(
        all_images,
        train=all_images.train.part(0, IMAGES),
        validation=all_images.validation and all_images.validation.part(0, 100),
        test=all_images.test.part(0, 100),
    )
    states: list[str] = []

    def show(stage: str, step: Step) -> None:
        if stage in {"float", "noisy"}:
            states.append(step.state)

    card = train_recipe(recipe, few, work=tmp_path / "work", output=tmp_path / "entry", show=show)
    assert len(states) == 2
    assert all(("validation" in state) is not everything for state in states)
    assert (card["validation"] is None) is everything
    assert card["made_by"].endswith("--everything") is everything
    assert 0.1 < card["accuracy_quantised"] <= 1


def test_a_recipe_with_a_public_part_trains_what_is_behind_it(recipe: Recipe, tmp_path: Path) -> None:
    kept = splits(everything=True)
    few = replace(kept, train=kept.train.part(0, 3 * IMAGES), test=kept.test.part(0, 500))
    behind_public = replace(
        recipe,
        stem=StemSpec(maps=4, kernel=3, pool=2),
        blocks=(ConvSpec(maps=6, kernel=4, stride=2, padding=1, both=True), ConvSpec(maps=16, kernel=3)),
        mean=True,
        float_phase=replace(SHORT, epochs=6),
    )
    untouched: Any = behind_public.module()
    public = untouched[0]
    assert isinstance(public, Whitening)
    public.look_at(torch.tensor(few.train.images))
    card = train_recipe(behind_public, few, work=tmp_path, output=tmp_path / "entry", show=lambda *_: None)
    program = Program.load(tmp_path / "entry")
    assert program.stem is not None
    assert (program.sample_shape, program.input.shape) == ((1, 28, 28), (8, 14, 14))
    assert card["lookups"] == program.lookups == 6 * 7 * 7 + 16 * 5 * 5
    images = few.test.images[:20].astype(np.float32) / 255
    with torch.no_grad():
        assert np.allclose(program.stem.run(images), public(torch.tensor(images)).numpy(), atol=1e-5)
    trained: Any = load_baseline(behind_public.module(), tmp_path / "entry")
    assert len(trained) == len(untouched)  # what is stored is the whole module
    assert card["accuracy_quantised"] > 0.4  # of ten classes; 0.64 as measured


def test_a_recipe_of_two_views_answers_the_same_for_an_image_and_its_mirror_image(
    recipe: Recipe, tmp_path: Path
) -> None:
    kept = splits(everything=True)
    few = replace(kept, train=kept.train.part(0, IMAGES), test=kept.test.part(0, 20))
    viewed = replace(
        recipe,
        stem=StemSpec(maps=4, kernel=3, pool=2),
        blocks=(
            ConvSpec(maps=6, kernel=4, stride=2, padding=1, both=True),
            ConvSpec(maps=8, kernel=3),
            ConvSpec(maps=8, kernel=3, padding=1, residual=True),
        ),
        mean=True,
        conversion=replace(recipe.conversion, views=2),
    )
    card = train_recipe(viewed, few, work=tmp_path, output=tmp_path / "entry", show=lambda *_: None)
    program = Program.load(tmp_path / "entry")
    assert card["name"] == program.name == viewed.name
    module = load_baseline(viewed.module(), tmp_path / "entry")
    of_one, of_two = (cards.measure(program, each, [few.test]) for each in (module, BothViews(module)))
    assert card["auc_float"] == of_two.auc_float != of_one.auc_float  # type: ignore[union-attr]
    assert card["lookups"] == program.lookups == 2 * (6 * 7 * 7 + 2 * 8 * 5 * 5)
    assert [layer.kind for layer in program.layers].count("add") == 3  # a residual in each view, and both logits
    images = few.test.images.astype(np.float32) / 255
    assert program.stem is not None
    found, mirrored = (
        simulate.plain(program.behind_stem, np.rint(program.stem.unit(view) * program.input.levels).astype(np.uint8))
        for view in (images, images[..., ::-1])
    )
    assert np.ptp(found) > 0
    # A level that lies between two integers may go to either.
    assert np.abs(found - mirrored).max() < 0.05 * np.ptp(found)


def test_what_has_no_second_view_is_refused_before_it_is_trained(recipe: Recipe, tmp_path: Path) -> None:
    kept = splits(everything=True)
    few = replace(kept, train=kept.train.part(0, IMAGES), test=kept.test.part(0, 20))
    odd = replace(
        recipe,
        stem=StemSpec(maps=4, kernel=3, pool=3),  # the last of 28 columns is in no square
        blocks=(ConvSpec(maps=6, kernel=3, both=True),),
        conversion=replace(recipe.conversion, views=2),
    )
    with pytest.raises(ProgramError, match="gives other maps for a mirrored image"):
        train_recipe(odd, few, work=tmp_path, output=tmp_path / "entry", show=lambda *_: None)
    assert not (tmp_path / "noisy.pt").exists()
    with pytest.raises(ValueError, match="views = 3"):
        replace(recipe.conversion, views=3)
    with pytest.raises(ValueError, match="a budget is for one view"):
        replace(recipe.conversion, views=2, budget=Budget(max_seconds=1.0))
    with pytest.raises(ValueError, match="is residual and makes"):
        replace(recipe, blocks=(ConvSpec(maps=6, kernel=3, padding=1, residual=True),)).module()


def test_a_recipe_may_learn_from_a_teacher_alone(recipe: Recipe, tmp_path: Path) -> None:
    """Wholly distilled, a network that is given other labels becomes the same, as long as its teacher is the same."""
    kept = splits(everything=True)
    few = replace(kept, train=kept.train.part(0, IMAGES), test=kept.test.part(0, 100))
    mixed = replace(few, train=replace(few.train, labels=few.train.labels[::-1].copy()))
    taught = replace(
        recipe,
        teacher=TeacherSpec(maps=4, widths=(8, 16), phase=SHORT),
        float_phase=replace(SHORT, distilled=1.0),
    )

    def trained(data: Splits, *again: str) -> dict[str, torch.Tensor]:
        for stage in again:
            (tmp_path / f"{stage}.pt").unlink()
        card = train_recipe(taught, data, work=tmp_path, output=tmp_path / "entry", show=lambda *_: None)
        assert card["training"]["teacher"]["widths"] == (8, 16)
        return load_baseline(taught.module(), tmp_path / "entry").state_dict()

    first = trained(few)
    with pytest.raises(StaleCheckpointError, match=r"teacher\.pt is of another training, with other labels"):
        trained(mixed, "float", "noisy")
    same_teacher = torch.load(tmp_path / "teacher.pt", weights_only=True)
    same_teacher["of"]["training"]["labels"] = hashlib.sha256(mixed.train.labels.data).hexdigest()
    torch.save(same_teacher, tmp_path / "teacher.pt")
    other_labels = trained(mixed)
    other_teacher = trained(mixed, "float", "noisy", "teacher")
    assert all(torch.equal(weights, other_labels[name]) for name, weights in first.items())
    assert not torch.equal(first["0.weight"], other_teacher["0.weight"])


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if isinstance(recipe, Recipe)])
def test_nothing_but_images_is_distorted(name: str) -> None:
    recipe = RECIPES[name]
    assert isinstance(recipe, Recipe)
    phases = (recipe.float_phase, *recipe.conversion.phases.values())
    assert len(recipe.input_shape) == 3 or not any(phase.distortion for phase in phases)


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["train", "mnist-tiny", "--device", "cuda:99"])
    assert result.exit_code == 2
    assert "cuda:99" in result.output
