"""Every kind of key and ciphertext that leaves the client, with its estimated bits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.envelope import envelope
from he_layers.crypto import params
from he_layers.crypto.security import published_rows, security_bits


def measure(name: str) -> dict[str, Any]:
    """Returns the published rows of a parameter set and the least of their bits."""
    parameter_set = params.get(name)
    rows = [asdict(row) | {"bits": round(row.bits, 1)} for row in published_rows(parameter_set)]
    return envelope("security") | {
        "params": parameter_set.name,
        "params_id": parameter_set.id,
        "minimum_bits": round(security_bits(parameter_set), 1),
        "rows": rows,
    }
