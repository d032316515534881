"""The section on several workers: how a job is divided on this machine, and what that says of many cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.stored import Stored

CORES = (8, 64, 512)
LINK_BYTES = 1.25e9
"""A second, of the coordinator's machine: 10 Gbit/s."""
ABOUT = (
    "The coordinator computes linear layers, packs answers and sends look-ups to the workers, those of two slices of a layer at a time, so "
    "that it works while they do. *coordinator*, *workers*: processor seconds of the one process and of all the others. *divided*: their "
    "part of both. *expected*: the longest of the coordinator's time, a worker's, and both over the cores of this machine, from the "
    "processor seconds of one worker; where all cores are busy they are {contention:.2f} times as many, as on two threads of one local "
    "worker ({local:.3g} s on one thread, {both:.3g} s on two)."
)
PREDICTED = (
    "Predicted from there, for a cluster with one worker a core: {lookup:.3g} ms of a core for a look-up ({params}), divided among the "
    "workers; *coordinator*: linear layers on {threads} threads by the cost model (under {estimated}), and {sending:.3g} ms a look-up for "
    "all that the coordinator did above, {model}'s linear layers included, which is more than sending takes; *network*: {size} a look-up "
    "through the coordinator's 10 Gbit/s. The longest of the three is the time; *from*: how many cores it takes until it is no longer "
    "that of the look-ups; by the network alone it would be {wire:.0f}. Only this one machine was measured."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """What of a job is one process's, and what is divided; seconds."""

    coordinator: float
    workers: float
    network: float = 0.0

    def seconds(self, workers: int) -> float:
        """Of a job on so many workers, each with a core of its own."""
        return max(self.coordinator, self.network, self.workers / workers)

    def seconds_here(self, workers: int, cores: int, contention: float) -> float:
        """Of a job on so many workers of this machine; ``contention``: processor seconds with all cores busy, over those with one."""
        more = contention if workers >= cores else 1.0
        alone = self.seconds(min(workers, cores))
        return more * max(alone, (self.coordinator + self.workers) / cores)

    @property
    def limit(self) -> float:
        """Workers from which on more of them gain nothing."""
        return self.workers / max(self.coordinator, self.network)


def workers(stored: Stored, folder: Path) -> str:
    """Returns the section; draws nothing into ``folder``. Raises MissingError if nothing is stored."""
    scaling = max(stored.newest("engines", "model", command="ciphershift bench engines"), key=lambda r: r["date"])
    engines = scaling["engines"]
    of_ray = {count: engines[name] for count in (1, 2, 4) if (name := f"ray://?workers={count}&threads=1") in engines}
    local, both = (engines[f"local://?workers=1&threads={count}"] for count in (1, 2))
    contention = both["workers_cpu_s"] / local["workers_cpu_s"]
    one = Division(coordinator=of_ray[1]["coordinator_cpu_s"], workers=of_ray[1]["workers_cpu_s"])
    rows = [
        (
            count,
            tables.seconds(found["median_s"]),
            tables.seconds(one.seconds_here(count, scaling["cores"], contention)),
            tables.seconds(found["coordinator_cpu_s"]),
            tables.seconds(found["workers_cpu_s"]),
            tables.percent(found["workers_cpu_s"] / (found["workers_cpu_s"] + found["coordinator_cpu_s"]), 1),
            found["differ"],
        )
        for count, found in of_ray.items()
    ]
    head = ("Ray workers", "measured", "expected", "coordinator", "workers", "divided", "differ")
    text = (
        f"{scaling['model']}, {tables.several(scaling['images'], 'image')}, {scaling['lookups']} look-ups, medians of "
        f"{scaling['repetitions']}, everything on this machine. "
        + ABOUT.format(contention=contention, local=local["median_s"], both=both["median_s"])
        + "\n\n"
        + tables.table(head, rows)
    )
    records = stored.any("estimates", "network")
    if not records:
        return text
    lookup, sending = (
        of_ray[1]["workers_cpu_s"] / scaling["lookups"],
        of_ray[1]["coordinator_cpu_s"] / scaling["lookups"],
    )
    size = scaling["bytes_per_lookup"]
    text += "\n\n" + PREDICTED.format(
        lookup=1e3 * lookup,
        params=scaling["params"],
        threads=records[0]["threads"],
        estimated=records[0]["params"],
        sending=1e3 * sending,
        model=scaling["model"],
        size=tables.size(size),
        wire=lookup * LINK_BYTES / size,
    )
    return text + "\n\n" + _predicted(records, lookup, sending, size)


def _predicted(records: Sequence[Record], lookup: float, sending: float, size: float) -> str:
    head = ("network", *(f"{count} cores" for count in CORES), "coordinator", "network", "from")
    rows = []
    for record in records:
        count = record["lookups"]
        linear = record["predicted_s"] - count * record["lookup_s"]
        division = Division(
            coordinator=linear + count * sending, workers=count * lookup, network=count * size / LINK_BYTES
        )
        times = (*(division.seconds(cores) for cores in CORES), division.coordinator, division.network)
        rows.append((record["network"], *map(tables.seconds, times), f"{division.limit:.0f} cores"))
    return tables.table(head, rows)
