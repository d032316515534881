"""Measurements that are kept: JSON lines in benchmarks/results/, one file per question, appended to and never rewritten."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ciphershift.benchmarks.harness.envelope import ROOT, envelope, write

RESULTS = ROOT / "benchmarks" / "results"
MACHINE = ("cpu", "cores", "isa")
"""Members by which two measurements are known to be of one kind of machine."""

Record = dict[str, Any]


class BadResultError(Exception):
    """A line of stored results is not what it should be."""


def read(source: Path) -> list[Record]:
    """Returns the objects of a file of JSON lines, or of all such files in a folder, oldest first.

    Raises:
        BadResultError: there is no such file, or a line is no JSON object that names its benchmark.
    """
    if not source.exists():
        raise BadResultError(f"there is no {source}: give a file of JSON lines, or a folder of them")
    files = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    records = [
        _parse(line, f"{file}, line {number}")
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if line.strip()
    ]
    return sorted(records, key=lambda record: str(record.get("date", "")))


def _parse(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadResultError(f"{where}: {error}") from error
    if not isinstance(record, dict) or "benchmark" not in record:
        raise BadResultError(f'{where}: no JSON object with a member "benchmark"')
    return record


def store(record: Record, folder: Path = RESULTS) -> None:
    """Appends a measurement to its question's file."""
    folder.mkdir(parents=True, exist_ok=True)
    write(record, str(folder / f"{record['benchmark']}.jsonl"))


def of_this_machine(records: Iterable[Record]) -> list[Record]:
    """Returns those that were measured on this kind of machine."""
    here = envelope("")
    return [record for record in records if all(record.get(member) == here[member] for member in MACHINE)]


def newest(records: Iterable[Record], benchmark: str, **members: object) -> Record | None:
    """Returns the last one that answers a question with these members, if there is one."""
    found = matching(records, benchmark, members)
    return found[-1] if found else None


def matching(records: Iterable[Record], benchmark: str, members: Mapping[str, object]) -> list[Record]:
    """Returns all that answer a question with these members, oldest first."""
    wanted = {"benchmark": benchmark, **members}
    return [record for record in records if all(record.get(name) == value for name, value in wanted.items())]
