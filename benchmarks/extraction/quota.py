"""The quota that an owner may set for a stated loss: how many answers leave the best of the attacks below an agreement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ciphershift.benchmarks.networks.agreement import read_card

LOSS = 0.9  # share of inputs: a copy that agrees on as many is the loss that the quotas are for


def within(record: Mapping[str, Any]) -> int:
    """Returns the greatest number of answers, of those measured, below which no attack's copy agreed on LOSS of the inputs.

    0 if the least number measured is too many, or if a copy that was trained on public labels, without a query, agrees as often.
    """
    if record["without_queries"] is not None and record["without_queries"] >= LOSS:
        return 0
    points = record["points"]
    losing = [point["queries"] for point in points if point["agreement"] >= LOSS]
    kept = {point["queries"] for point in points if not losing or point["queries"] < min(losing)}
    return max(kept, default=0)


def keep(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the quota into the card of a model, which the server's profile and `ciphershift repository index` show."""
    card = read_card(folder) | {"recommended_quota": {"answers": within(record), "agreement": LOSS}}
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
