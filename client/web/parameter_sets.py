"""Writes src/parameter-sets.ts, the registry of the JavaScript client: `python client/web/parameter_sets.py`.

A set is its canonical JSON, letter by letter, since the SHA-256 of that is its id.
"""

from __future__ import annotations

from pathlib import Path

from ciphershift.he_layers.crypto.params import SETS, canonical_json

REGISTRY = Path(__file__).resolve().parent / "src" / "parameter-sets.ts"


def registry() -> str:
    """Returns the text of src/parameter-sets.ts."""
    lines = "".join(f"  '{canonical_json(params)}',\n" for params in SETS.values())
    return (
        "// Written by parameter_sets.py; never edited.\n"
        f"/** The canonical JSON of every registered parameter set. */\nexport const SETS: readonly string[] = [\n{lines}];\n"
    )


if __name__ == "__main__":
    REGISTRY.write_text(registry(), encoding="utf-8")
