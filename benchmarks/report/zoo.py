"""Tables of the networks of the zoo: each network's card beside its newest measurement through a real server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.networks.agreement import read_card
from ciphershift.benchmarks.report.stored import Stored
from ciphershift.benchmarks.report.tables import NONE, percent, seconds, size, table

LETTERS = {
    "conv": "C",
    "linear": "F",
    "max_pool": "P",
    "avg_pool": "average",
    "relu": "A",
    "crelu": "A±",
    "look_up": "L",
    "add": "+",
}
STEPS = re.compile(r"((?:[^-]+-){2,}?)\1{3,}")
"""The same layers four times or more."""
Card = Mapping[str, Any]


def cards_with_runs(records: Sequence[Record], models: Path) -> list[tuple[Card, Record | None]]:
    """Returns each network's card, fewest look-ups first, with the newest run of this version of the network, if there is one."""
    runs = {run["program"]: run for run in Stored(records).any("agreement", "model")}
    cards = [read_card(path.parent) for path in models.glob("*/card.json")]
    return [(card, runs.get(card["digest"])) for card in sorted(cards, key=lambda card: int(card["lookups"]))]


def there(runs: Sequence[Record], models: Path) -> list[Record]:
    """Those of networks that have not left the zoo."""
    return [run for run in runs if (models / run["model"]).is_dir()]


def unchanged(runs: Sequence[Record], models: Path) -> list[Record]:
    """Those of networks, `model_name`, that are in the zoo as they were then."""
    digests = {card["name"]: card["digest"] for card, _ in cards_with_runs((), models)}
    return [run for run in runs if run.get("program") == digests.get(run["model_name"], False)]


def short(networks: Sequence[tuple[Card, Record | None]]) -> str:
    """Five columns for the README."""
    rows = [
        (
            f"**{card['name']}**",
            Path(card["dataset"]).stem,
            percent(card["accuracy_float"]),
            percent(card["accuracy_simulated"]),
            seconds(run["median_s"]) if run and "median_s" in run else NONE,
        )
        for card, run in networks
    ]
    return table(("network", "data", "accuracy, float", "accuracy, encrypted", "per image"), rows)


def full(networks: Sequence[tuple[Card, Record | None]]) -> str:
    """All columns, for the page of benchmarks."""
    head = ("network", "topology", "look-ups", "float", "integers, no noise", "simulated", "encrypted like plaintext")
    return table((*head, "per image", "upload, answer", "keys", "memory"), [_row(*network) for network in networks])


def agreement(networks: Sequence[tuple[Card, Record | None]]) -> tuple[int, int]:
    """Returns how many encrypted images got the class that the plaintext network gives them, and how many there were."""
    runs = [run for _, run in networks if run]
    return sum(run["agree"] for run in runs), sum(run["images"] for run in runs)


def _row(card: Card, run: Record | None) -> tuple[object, ...]:
    accuracies = (percent(card[name]) for name in ("accuracy_float", "accuracy_quantised", "accuracy_simulated"))
    exact = " (exact)" if card["profile"] == "exact" else ""
    public = "public-" if "public" in card else ""
    about = (f"**{card['name']}**{exact}", public + topology(card["topology"]), card["lookups"], *accuracies)
    if run is None:
        return (*about, *[NONE] * 5)
    return (
        *about,
        f"{run['agree']} of {run['images']}",
        seconds(run["median_s"]) if "median_s" in run else NONE,
        f"{size(run['upload_bytes'])}, {size(run['download_bytes'])}",
        size(run["key_bytes"]),
        size(run["server_peak_memory_bytes"]),
    )


def topology(layers: Sequence[Mapping[str, Any]]) -> str:
    """In SHE's letters, with the number of maps or units; what repeats, steps of a recurrent network or a second view, is written once."""
    for place, layer in enumerate(layers):
        if layer["layer"] == "gather" and layers[:place] == layers[place + 1 : -1]:
            return f"2 views x ({topology(layers[:place])})"
    words = []
    for layer in layers:
        letter = LETTERS.get(layer["layer"])
        if letter in ("C", "F"):
            letter += str(layer["output"][0])
        words.append(letter)
    text = "-".join(word for word in words if word)
    return STEPS.sub(lambda found: f"{found[0].count(found[1])} x ({found[1][:-1]})-", text)
