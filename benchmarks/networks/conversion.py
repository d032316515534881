"""What a conversion loses with default settings, before any training and after `fine_tune`: ordinary ReLU networks on the zoo's data.

The networks are those of the recipes with activations that do not clip, as people have them. Accuracies are of test samples, with the
noise that is predicted for the circuit. Data with a test part of their own are repeated with other seeds, others with other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.errors import ConfigurationError
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.inputs import decoded
from ciphershift.models.compiler.network import Network
from ciphershift.models.progress import Show
from ciphershift.models.training import cards, sets
from ciphershift.models.training.loop import FINE_TUNING
from ciphershift.models.training.pipeline import CALIBRATION_IMAGES, train_phase
from ciphershift.models.training.recipes import RECIPES, Recipe
from ciphershift.models.training.sets import Splits

STAGES = ("float", "converted", "tuned")


def measure(name: str, *, repeats: int, work: Path, show: Show) -> dict[str, Any]:
    """Returns accuracies of the float network, converted and fine-tuned, each repeat's and the mean losses in points.

    Args:
        name: of a recipe.
        repeats: at least 2; of data without a test part each is one of so many folds.
        work: folder for checkpoints; an interrupted run goes on from there.
        show: called after every epoch; see models.progress.

    Raises:
        ConfigurationError: the recipe is of the exact profile, or there is none of this name.
    """
    recipe = RECIPES.get(name)
    if not isinstance(recipe, Recipe):
        ordinary = [each.name for each in RECIPES.values() if isinstance(each, Recipe)]
        raise ConfigurationError(f"{name!r} is no recipe of the fast profile; one of {', '.join(ordinary)}")
    made, folded = _splits(recipe, repeats)
    of_folds = f"-of-{repeats}" if folded else ""
    found = [
        _once(recipe, splits, seed=seed, work=work / f"{name}-{seed}{of_folds}", show=show)
        for seed, splits in enumerate(made)
    ]
    losses = {stage: [100 * (each["float"] - each[stage]) for each in found] for stage in STAGES if stage != "float"}
    return envelope("conversion", params=parameter_sets.get(parameter_sets.DEFAULT)) | {
        "model": name,
        "dataset": recipe.dataset,
        "folds": folded,
        "repeats": [{stage: round(each[stage], 4) for stage in STAGES} for each in found],
        "loss_points": {stage: round(mean(values), 2) for stage, values in losses.items()},
        "loss_deviation": {stage: round(stdev(values), 2) for stage, values in losses.items()},
        "fine_tuning": asdict(FINE_TUNING),
    }


def ordinary(module: nn.Module) -> nn.Module:
    """The module with ReLUs in place of activations that clip at one."""
    for name, child in module.named_children():
        if isinstance(child, nn.Hardtanh):
            setattr(module, name, nn.ReLU())
        else:
            ordinary(child)
    return module


def _splits(recipe: Recipe, repeats: int) -> tuple[Sequence[Splits], bool]:
    """The data of each repeat, and whether these are folds."""
    raw = sets.raw_data(recipe.dataset, recipe.reading)
    if raw.test is None:
        parts = [raw.fold(number, repeats) for number in range(repeats)]
        return [Splits.of(part, name=recipe.dataset, reading=recipe.reading) for part in parts], True
    return [Splits.of(raw, name=recipe.dataset, reading=recipe.reading)] * repeats, False


def _once(recipe: Recipe, splits: Splits, *, seed: int, work: Path, show: Show) -> dict[str, float]:
    torch.manual_seed(seed)
    module = ordinary(recipe.module())
    learner = decoded(module, splits.inputs, recipe.input_shape[0])
    train_phase("float", learner, recipe.float_phase, splits, work=work, seed=seed, show=show)
    inputs, images = splits.inputs, splits.train.spread(CALIBRATION_IMAGES).images
    network = convert(module.eval(), inputs.raw_of(images), inputs=inputs)
    baseline = decoded(module, inputs, images.shape[1])
    float_accuracy, converted = _accuracies(network, baseline, splits)
    train_phase("tuned", network, FINE_TUNING, splits, work=work, seed=seed, show=show)
    _, tuned = _accuracies(network, baseline, splits)
    return {"float": float_accuracy, "converted": converted, "tuned": tuned}


def _accuracies(network: Network, baseline: nn.Module, splits: Splits) -> tuple[float, float]:
    """Of the float network, and of the Program with noise."""
    was = network.training
    program = export(network.eval(), name="converted", version="1", params=network.params, classes=splits.classes)
    network.train(was)
    found = cards.measure(program, baseline.eval(), splits.test.parts(cards.PART))
    assert isinstance(found, cards.Accuracies), "recipes are for classes"
    return found.accuracy_float, found.accuracy_simulated
