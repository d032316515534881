"""The envelope of every measurement: machine, date and commit."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.security import security_bits
from ciphershift.he_layers.native import _kernel
from ciphershift.server.settings import available_cpus

DIRTY = "-dirty"
"""Ends the commit of a measurement of code that was changed and not committed."""
ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ("benchmarks/results", "docs/benchmarks.md", "docs/figures")
"""What measurements and reports themselves write."""


def envelope(benchmark: str, *, threads: int | None = None, params: ParameterSet | None = None) -> dict[str, Any]:
    """Returns the members that all results share; with a parameter set also its name, its id and its bits."""
    shared = {
        "benchmark": benchmark,
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": available_cpus(),
        "isa": _kernel.isa(),
        "threads": threads or available_cpus(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if params is None:
        return shared
    return shared | {"params": params.name, "params_id": params.id, "security_bits": round(security_bits(params), 1)}


def write(result: dict[str, Any], target: str) -> None:
    """Writes one JSON object as a line to a file, or to stdout for `-`."""
    line = json.dumps(result)
    if target == "-":
        typer.echo(line)
    else:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _commit() -> str:
    """Returns the commit of the code; changes to results and to what is drawn from them do not count."""
    name = _git("rev-parse", "--short=12", "HEAD")
    if name.returncode:
        return "unknown"
    changed = _git("diff", "--quiet", "HEAD", "--", ".", *(f":(exclude){path}" for path in WRITTEN)).returncode
    return name.stdout.strip() + (DIRTY if changed else "")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
