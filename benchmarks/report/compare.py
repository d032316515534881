"""Compares two runs: for every figure that both have, the ratio of its medians and the range of the ratio.

A figure is a number that a run measures. Its spread comes from the percentiles in the record, or from several records of the same thing;
a single number has no spread, and is marked so.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ciphershift.benchmarks.harness.results import MACHINE, Record

IDENTITY = (
    "benchmark",
    "op",
    "primitive",
    "system",
    "model",
    "dataset",
    "variant",
    "seed",
    "params",
    "noise_factor",
    "engine",
    "batch",
    "maps",
    "size",
    "source",
    "threads",
)
"""Members by which two records are known to be of the same thing."""
SETTINGS = {"quick", "images", "start", "samples", "repetitions", "epochs", "security_bits", "cores"}
"""Numbers that were chosen, not measured."""
SPREADS = {  # a figure and its 10th and 90th percentile
    "median_s": ("p10_s", "p90_s"),
    "seconds_per_image": ("p10_s", "p90_s"),
    "median_us_per_item": ("p10", "p90"),
}
PERCENTILES = {name for pair in SPREADS.values() for name in pair}
TIMES = ("seconds", "_s", "_us", "us_per_item", "seconds_per_image", "per_lookup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Median of a figure, and its range; low equals high where the spread is unknown."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure in both runs; ``ratio`` is after over before, ``low`` to ``high`` its range."""

    name: str
    figure: str
    before: Figure
    after: Figure

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.after.median / self.before.median

    @property
    def low(self) -> float:
        """The best of after over the worst of before."""
        return self.after.low / self.before.high

    @property
    def high(self) -> float:
        """The worst of after over the best of before."""
        return self.after.high / self.before.low

    @property
    def is_time(self) -> bool:
        """Whether less is better."""
        return any(part.endswith(TIMES) for part in self.figure.split("."))

    @property
    def has_spread(self) -> bool:
        """Whether the spread is known."""
        return self.before.low < self.before.high or self.after.low < self.after.high


def compare(before: Sequence[Record], after: Sequence[Record]) -> tuple[list[Row], list[str]]:
    """Returns the figures that both have, and remarks: different machines, measurements that only one run has."""
    first, second = _grouped(before), _grouped(after)
    rows = [
        Row(name=name, figure=figure, before=first[name][figure], after=second[name][figure])
        for name in first
        if name in second
        for figure in first[name]
        if figure in second[name] and first[name][figure].low > 0
    ]
    return rows, _remarks(before, after, first.keys(), second.keys())


def table(rows: Sequence[Row]) -> str:
    """Markdown, for a terminal or a review."""
    lines = ["| what | figure | before | after | ratio | between |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        between = f"{row.low:.3f} and {row.high:.3f}" if row.has_spread else "one sample"
        lines.append(
            f"| {row.name} | {row.figure} | {row.before.median:g} | {row.after.median:g} | {row.ratio:.3f} | {between} |"
        )
    return "\n".join(lines)


def _grouped(records: Iterable[Record]) -> dict[str, dict[str, Figure]]:
    things: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        things[_name(record)].append(record)
    return {name: _figures(same) for name, same in things.items()}


def _name(record: Record) -> str:
    parts = []
    for member in IDENTITY:
        value = record.get(member)
        if value is not None:
            text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
            parts.append(text if member == "benchmark" else f"{member}={text}")
    return " ".join(parts)


def _figures(same: Sequence[Record]) -> dict[str, Figure]:
    values: dict[str, list[float]] = defaultdict(list)
    for record in same:
        for name, value in _numbers(record):
            values[name].append(value)
    figures = {}
    for name, found in values.items():
        if name in PERCENTILES or name in IDENTITY or name in SETTINGS:
            continue
        low, high = (values.get(percentile, found) for percentile in SPREADS.get(name, (name, name)))
        figures[name] = Figure(median=statistics.median(found), low=min(low), high=max(high))
    return figures


def _numbers(record: Record, prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers with their names; inside objects and lists of layers, the names on the way joined by dots."""
    for member, value in record.items():
        name = f"{prefix}{member}"
        if isinstance(value, bool):
            continue
        if isinstance(value, (int, float)):
            yield name, float(value)
        elif isinstance(value, dict) and name not in IDENTITY:
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict) and "layer" in item:
                    yield from _numbers(item, f"{name}.{item['layer']}.")


def _remarks(
    before: Sequence[Record], after: Sequence[Record], first: Iterable[str], second: Iterable[str]
) -> list[str]:
    remarks = []
    for member in (*MACHINE, "threads"):
        one, other = ({str(record.get(member)) for record in run} for run in (before, after))
        if one != other:
            remarks.append(f"{member} differs: {', '.join(sorted(one))} before, {', '.join(sorted(other))} after")
    remarks += [f"only before: {name}" for name in first if name not in set(second)]
    remarks += [f"only after: {name}" for name in second if name not in set(first)]
    return remarks
