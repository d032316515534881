"""What authors publish of other systems, from published.json."""

import json
from importlib.resources import files
from typing import Any


def published() -> dict[str, Any]:
    """Returns ``she``, the tables of SHE's paper, and ``elsewhere``, rows of other systems."""
    content: dict[str, Any] = json.loads(
        files("ciphershift.benchmarks.report").joinpath("published.json").read_text("utf-8")
    )
    return content
