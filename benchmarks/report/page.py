"""docs/benchmarks.md: one page from stored records, each section with its measurements, or with the command that makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ciphershift.benchmarks.harness.envelope import DIRTY
from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report.sections import FIGURES, SECTIONS
from ciphershift.benchmarks.report.stored import MissingError, Stored, machine

HEAD = """# Latency against accuracy

This page is written by `ciphershift bench report` from the measurements in `benchmarks/results/`; do not edit it. Accuracies in the
clear are those of all 10 000 test images, unless something else is said; each encrypted figure says on how many images it stands. Times
on a shared machine wander: the 10th and 90th percentile stand beside a median where there are several samples."""


def _machines(records: Sequence[Record]) -> str:
    """A line for each machine, and which figures are older than the commits that it names."""
    seen = {machine(record): record for record in records if "cores" in record}
    lines = []
    for record in seen.values():
        same = [r for r in records if machine(r) == machine(record)]
        commits = sorted({str(r["commit"]) for r in same if not _is_between(r)})
        dates = sorted(str(r["date"])[:10] for r in same)
        lines.append(
            f"- {record['cpu']}, {record['cores']} cores, {record['isa']}: {len(same)} records, {dates[0]} to {dates[-1]}, "
            f"commits {', '.join(commits)}"
        )
        between = Counter((r["benchmark"], str(r["commit"]).removesuffix(DIRTY)) for r in same if _is_between(r))
        if between:
            older = (f"{count} of {name} on top of {commit}" for (name, commit), count in sorted(between.items()))
            lines.append(f"  - measured before their change was committed: {', '.join(older)}")
    return "Measured on:\n\n" + "\n".join(lines) if lines else "Nothing is stored yet."


def _is_between(record: Record) -> bool:
    return str(record["commit"]).endswith(DIRTY)


def write(records: Sequence[Record], page: Path) -> None:
    """Writes the page, and the figures into a folder beside it."""
    stored = Stored(records)
    parts = [HEAD, _machines(records)]
    for title, section in SECTIONS:
        parts.append(f"## {title}")
        try:
            parts.append(section(stored, page.parent / FIGURES))
        except MissingError as missing:
            parts.append(f"**Not measured yet.** `{missing}` measures it.")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
