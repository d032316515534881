"""The two tables of the README that come from measurements: our networks, and other systems beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import zoo
from ciphershift.benchmarks.report.points import Point, points
from ciphershift.benchmarks.report.stored import MissingError, Stored
from ciphershift.benchmarks.report.tables import percent, size, table

BEGIN, END = "<!-- {name}: written by ciphershift bench report -->\n", "<!-- end of {name} -->\n"
OURS = ("mnist-tiny", "mnist-fast")
"""Our networks in the table of systems: one as fast as the fastest peer, one more accurate than every peer."""


def systems(records: Sequence[Record]) -> str:
    """Our networks of OURS and the fastest configuration of each peer, fastest first.

    Raises:
        MissingError: no system was measured.
    """
    measured = points(Stored(records).newest("peers", "system", command="ciphershift bench report"))
    chosen: dict[str, Point] = {}
    for point in sorted(measured, key=lambda point: point.seconds):
        if point.label in OURS or point.kind != "ciphershift":
            chosen.setdefault(point.label if point.label in OURS else point.record["peer"], point)
    head = ("system", "activation", "accuracy", "s per image", "upload", "keys")
    return table(head, [_row(point) for point in chosen.values()])


def _row(point: Point) -> tuple[object, ...]:
    record, ours = point.record, point.kind == "ciphershift"
    return (
        f"**{record['system']}**" if ours else f"{record['system']} {record['version']}",
        "ReLU" if ours else record["activation"],
        percent(point.accuracy),
        f"{point.seconds:.2g}",
        size(point.upload_bytes),
        size(point.key_bytes),
    )


def networks(records: Sequence[Record], models: Path) -> str:
    """The table of the zoo, and how often encrypted images got the plaintext network's class."""
    found = zoo.cards_with_runs(records, models)
    agree, images = zoo.agreement(found)
    counted = f"\n\nOf {images} images that were encrypted for this table, {agree} got the plaintext network's class."
    return zoo.short(found) + (counted if images else "")


def write(records: Sequence[Record], models: Path, readme: Path) -> None:
    """Puts the tables in their places in the README; without measurements of other systems, theirs stays as it is.

    Raises:
        ValueError: the README has no place for them.
    """
    text = _put(readme.read_text(encoding="utf-8"), "networks", networks(records, models), readme)
    with suppress(MissingError):
        text = _put(text, "systems", systems(records), readme)
    readme.write_text(text, encoding="utf-8")


def _put(text: str, name: str, content: str, readme: Path) -> str:
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{readme} lacks the lines {begin.strip()} and {end.strip()}")
    return f"{before}{begin}\n{content}\n\n{end}{after}"
