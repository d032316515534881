"""CIFAR-10: our networks and what peers run here, beside what others publish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.peers.systems import PHOTOGRAPHS
from ciphershift.benchmarks.report import figures, tables, zoo
from ciphershift.benchmarks.report.points import Point
from ciphershift.benchmarks.report.published import published
from ciphershift.benchmarks.report.stored import Stored
from ciphershift.benchmarks.report.style import markdown, save
from ciphershift.server.settings import Settings

DATA = "CIFAR-10"
NAME = "accuracy-latency-cifar10"
HERE = "here"


def photographs(stored: Stored, folder: Path) -> str:
    """The section, with its figure."""
    shown = [*_ours(stored), *_peers(stored), *_elsewhere()]
    save(
        folder,
        NAME,
        figures.accuracy_against(
            shown, lambda point: point.seconds, "seconds for one image, logarithmic", error="wrong, % (up is better)"
        ),
    )
    about = (
        "Accuracies of our networks are simulated with the noise of the circuit, on all test images. A peer that runs here has the "
        "published shape with random weights, which cost the same operations, and the published accuracy. The other rows are as published, "
        "each on its own hardware: no ratio of two times from different machines means anything for the methods."
    )
    lines = [about, markdown(folder.name, NAME, "Accuracy over seconds for one image of CIFAR-10"), _table(shown)]
    lines += [
        f"- {point.label}: {point.record['agree_with_clear']} of {point.record['accuracy_encrypted_n']} encrypted images got the class of "
        f"its plaintext network, whose weights are random ({point.record['settings']})"
        for point in shown
        if point.record.get("agree_with_clear") is not None
    ]
    lines.append(
        "- Orion's ResNet-20 is missing: its bootstrapper needs more memory than there is here (`benchmarks/peers/README.md`)"
    )
    lines += [
        f"- {record['system']} is missing: {record['skipped']}" for record in stored.skipped() if of_photographs(record)
    ]
    return "\n\n".join(lines)


def of_photographs(record: Record) -> bool:
    """Whether a peer's record belongs to this section."""
    return any(record.get("peer") == peer.name for peer in PHOTOGRAPHS)


def _ours(stored: Stored) -> list[Point]:
    return [
        Point(
            label=card["name"],
            kind="ciphershift",
            accuracy=card["accuracy_simulated"],
            seconds=run["median_s"],
            upload_bytes=run["upload_bytes"],
            key_bytes=run["key_bytes"],
            record=run | {"about": f"{card['lookups']} look-ups", "hardware": HERE},
        )
        for card, run in zoo.cards_with_runs(stored.records, Settings().models)
        if card["dataset"] == "cifar10" and run is not None and "median_s" in run
    ]


def _peers(stored: Stored) -> list[Point]:
    return [
        Point(
            label=record["system"],
            kind=record["activation"],
            accuracy=record["accuracy_published"],
            seconds=record["seconds_per_image"],
            upload_bytes=record["upload_bytes"],
            key_bytes=record["key_bytes"],
            record=record | {"about": record["topology"], "hardware": HERE},
        )
        for record in stored.any("peers", "system")
        if of_photographs(record)
    ]


def _elsewhere() -> list[Point]:
    content = published()
    she = content["she"]
    rows = [
        {
            "system": f"{row['network']} ({row['topology']})",
            "activation": "look-up",
            "point": {"accuracy": row["accuracy"], "seconds": row["seconds"]},
            "work": "estimated by its authors",
            "hardware": she["hardware"],
            "upload_bytes": row["upload_bytes"],
        }
        for row in she["rows"]
        if row["data"] == DATA
    ]
    return [
        Point(
            label=row["system"],
            kind=row["activation"],
            accuracy=row["point"]["accuracy"] / 100,
            seconds=row["point"]["seconds"],
            upload_bytes=row.get("upload_bytes", 0),
            key_bytes=0,
            record=row | {"about": row["work"]},
            published=True,
        )
        for row in (*rows, *(row for row in content["elsewhere"] if "point" in row))
    ]


def _table(shown: Sequence[Point]) -> str:
    head = ("system", "activation", "what", "accuracy", "s per image", "upload", "keys", "where")
    return tables.table(
        head,
        [
            (
                point.label if point.published else f"**{point.label}**",
                "look-up" if point.kind == "ciphershift" else point.kind,
                point.record["about"],
                tables.percent(point.accuracy),
                tables.seconds(point.seconds),
                tables.size(point.upload_bytes),
                tables.size(point.key_bytes),
                point.record["hardware"],
            )
            for point in sorted(shown, key=lambda point: (point.published, point.seconds))
        ],
    )
