"""The table of the zoo in the README: each network's card beside its last measurement through a real server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.networks.agreement import read_card
from ciphershift.benchmarks.report.stored import Stored
from ciphershift.benchmarks.report.tables import NONE, percent, seconds, size, table

BEGIN, END = "<!-- written by ciphershift bench report -->\n", "<!-- end of what is written -->\n"
HEAD = (
    "network",
    "data",
    "topology",
    "look-ups",
    "float",
    "integers, no noise",
    "simulated",
    "encrypted like plaintext",
    "per image",
    "upload, answer",
    "keys",
    "memory",
)
LETTERS = {"conv": "C", "linear": "F", "max_pool": "P", "avg_pool": "average", "relu": "A", "add": "+"}


def zoo(records: Sequence[Record], models: Path) -> str:
    """One row for each network, the cheapest first."""
    runs = {run["program"]: run for run in Stored(records).any("agreement", "model")}
    cards = sorted(
        (read_card(path.parent) for path in models.glob("*/card.json")), key=lambda card: int(card["lookups"])
    )
    return table(HEAD, [_row(card, runs.get(card["digest"])) for card in cards])


def _row(card: Mapping[str, Any], run: Record | None) -> tuple[object, ...]:
    accuracies = (percent(card[f"accuracy_{kind}"]) for kind in ("float", "quantised", "simulated"))
    exact = " (exact)" if card["profile"] == "exact" else ""
    about = (f"**{card['name']}**{exact}", card["dataset"], _topology(card["topology"]), card["lookups"], *accuracies)
    if run is None:
        return (*about, *[NONE] * (len(HEAD) - len(about)))
    return (
        *about,
        f"{run['agree']} of {run['images']}",
        seconds(run["median_s"]),
        f"{size(run['upload_bytes'])}, {size(run['download_bytes'])}",
        size(run["key_bytes"]),
        size(run["server_peak_memory_bytes"]),
    )


def _topology(layers: Sequence[Mapping[str, Any]]) -> str:
    """In SHE's letters, with the number of maps or units."""
    words = []
    for layer in layers:
        letter = LETTERS.get(layer["layer"])
        if letter in ("C", "F"):
            letter += str(layer["output"][0])
        words.append(letter)
    return "-".join(word for word in words if word)


def write(records: Sequence[Record], models: Path, readme: Path) -> None:
    """Puts the table in its place in the README.

    Raises:
        ValueError: the README has no place for it.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{readme} lacks the lines {BEGIN.strip()} and {END.strip()}")
    readme.write_text(f"{before}{begin}\n{zoo(records, models)}\n\n{end}{after}", encoding="utf-8")
