"""An entry of the zoo: a Program, its float baseline and a card with the figures measured on the test images."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from he_layers import simulate
from he_layers.crypto import params as parameter_sets
from he_layers.program import Program
from models.data import Split
from models.exact import ExactNetwork
from models.network import Network
from models.recipes import VALIDATION_IMAGES, ExactRecipe, Recipe
from models.training import accuracy

ZOO = Path(__file__).parent / "zoo"
FLOAT_FILE, CARD_FILE = "float.safetensors", "card.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracies:
    """Shares of images classified right: by the float baseline, the Program without noise, the Program with predicted noise.

    ``agreement_simulated`` is the share of images that the Program classifies alike with noise and without.
    """

    accuracy_float: float
    accuracy_quantised: float
    accuracy_simulated: float
    agreement_simulated: float


def measure(program: Program, baseline: Network | ExactNetwork, split: Split, *, seed: int = 0) -> Accuracies:
    """All three accuracies; ``seed`` is that of the simulated noise."""
    plain = simulate.plain(program, split.images).argmax(1)
    noisy = simulate.run(program, parameter_sets.get(program.params), split.images, np.random.default_rng(seed)).argmax(
        1
    )
    return Accuracies(
        accuracy_float=accuracy(baseline, split),
        accuracy_quantised=float((plain == split.labels).mean()),
        accuracy_simulated=float((noisy == split.labels).mean()),
        agreement_simulated=float((noisy == plain).mean()),
    )


def load_baseline(recipe: Recipe | ExactRecipe, folder: Path) -> Network | ExactNetwork:
    """The float network of the same topology that lies beside a Program."""
    network = recipe.network()
    network.load_state_dict(load_file(folder / FLOAT_FILE))
    network.eval()
    return network


def write(
    folder: Path,
    recipe: Recipe | ExactRecipe,
    program: Program,
    baseline: Network | ExactNetwork,
    *,
    validation: Accuracies,
    test: Accuracies,
) -> None:
    """Writes program, baseline and card into ``folder``."""
    program.save(folder)
    save_file(baseline.state_dict(), folder / FLOAT_FILE)
    params = parameter_sets.get(program.params)
    card: dict[str, Any] = {
        "name": program.name,
        "version": program.version,
        "digest": program.digest,
        "dataset": recipe.dataset,
        "topology": [
            {"layer": stage.layer.kind, "output": stage.output_shape, "lookups": stage.lookups}
            for stage in program.stages
        ],
        "lookups": program.lookups,
        "weights": sum(layer.weight.size for layer in program.layers if hasattr(layer, "weight")),
        "activation_levels": recipe.levels,
        "params": params.name,
        "params_id": params.id,
        **asdict(test),
        "accuracy_images": "the 10 000 test images",
        "validation": asdict(validation),
        "validation_images": f"the last {VALIDATION_IMAGES} training images, not trained on",
        "training": asdict(recipe),
        "made_by": f"python -m models train {recipe.name}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The card in ``folder``."""
    card: dict[str, Any] = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    return card
