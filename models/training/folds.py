"""A recipe once for each fold of its data, since the test part of a small table says little."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ciphershift.errors import UnreadableDataError
from ciphershift.models.progress import Show
from ciphershift.models.training import cards, data, pipeline, sets
from ciphershift.models.training.recipes import Recipe
from ciphershift.models.training.sets import Splits


def measure(recipe: Recipe, count: int, *, work: Path, folder: Path, show: Show) -> dict[str, Any]:
    """Trains and converts anew for each fold, and adds the figures to the card of the network that is there.

    Every sample is in the test part of one fold. Nothing is chosen on these figures: the recipe is the same in all of them.

    Args:
        recipe: of a network on data that come as a file.
        count: of the folds, at least 2.
        work: folder for checkpoints; an interrupted run goes on from there.
        folder: of the entry of the zoo.
        show: see models.progress.

    Raises:
        UnreadableDataError: the data have a test part of their own, by which others measure.
    """
    if recipe.dataset in data.CLASSES:
        raise UnreadableDataError(f"{recipe.dataset} has test images of its own; folds are for data without")
    raw = sets.raw_data(recipe.dataset, recipe.reading)
    found: list[dict[str, Any]] = []
    for number in range(count):
        own = work / f"fold-{number}-of-{count}"
        splits = Splits.of(raw.fold(number, count), name=recipe.dataset, reading=recipe.reading)
        found.append(pipeline.train_recipe(recipe, splits, work=own, output=own / recipe.name, show=show))
    card = cards.read(folder)
    figures = {key: [float(one[key]) for one in found] for keys in cards.FIGURES for key in keys if key in found[0]}
    card["folds"] = {"count": count} | {
        key: {"mean": mean(values), "deviation": stdev(values), "each": values} for key, values in figures.items()
    }
    (folder / cards.CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card
