"""Follow a recipe of the zoo from an untrained module to a written entry."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models.nn import exact
from ciphershift.models.progress import Show
from ciphershift.models.training import cards
from ciphershift.models.training.pipeline import VERSION, Splits, make, train_phase
from ciphershift.models.training.recipes import ExactRecipe, Recipe


def follow(recipe: Recipe | ExactRecipe, splits: Splits, *, work: Path, output: Path, show: Show) -> dict[str, Any]:
    """Trains, converts or quantises, exports and measures; returns the card.

    Args:
        recipe: what to make.
        splits: of the recipe's data set.
        work: folder for checkpoints; an interrupted run goes on from there.
        output: folder of the entry.
        show: called after every epoch and while the card is measured; see models.progress.
    """
    made_by = f"ciphershift train {recipe.name}"
    if splits.validation is None:
        made_by += " --everything"
    if isinstance(recipe, ExactRecipe):
        return _exact(recipe, splits, work=work, output=output, show=show, made_by=made_by)
    seed = recipe.conversion.seed
    torch.manual_seed(seed)
    module = recipe.module()
    train_phase("float", module, recipe.float_phase, splits, work=work, seed=seed, show=show)
    return make(
        recipe.name,
        module,
        recipe.conversion,
        splits,
        work=work,
        output=output,
        source=recipe.name,
        made_by=made_by,
        show=show,
        training={"blocks": [asdict(block) for block in recipe.blocks], "float_phase": asdict(recipe.float_phase)},
    )


def _exact(
    recipe: ExactRecipe, splits: Splits, *, work: Path, output: Path, show: Show, made_by: str
) -> dict[str, Any]:
    torch.manual_seed(recipe.seed)
    baseline = recipe.module()
    train_phase("float", baseline, recipe.float_phase, splits, work=work, seed=recipe.seed, show=show)
    network = deepcopy(baseline)
    network.quantise(True)
    train_phase("integer", network, recipe.integer_phase, splits, work=work, seed=recipe.seed, show=show)
    program = exact.to_program(network, name=recipe.name, version=VERSION, params=recipe.params, classes=splits.classes)
    noise_budget.require_exact(program, parameter_sets.get(recipe.params))
    return cards.write(
        output,
        program,
        baseline,
        dataset=splits.name,
        module_source=recipe.name,
        training=asdict(recipe),
        made_by=made_by,
        validation=splits.validation,
        test=splits.test,
        show=show,
    )
