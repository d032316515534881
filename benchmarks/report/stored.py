"""Stored records as the page needs them: the newest of one machine, or an error if there are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ciphershift.benchmarks.harness.results import MACHINE, Record


class MissingError(Exception):
    """A section's measurement is not stored; the text is the command that makes it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest record of each kind; if several machines made them, those of the newest machine."""

    records: Sequence[Record]

    def newest(self, benchmark: str, *members: str, command: str, anywhere: bool = False) -> list[Record]:
        """The last record for each combination of members, in the order in which they were first measured.

        Args:
            benchmark: what was measured.
            members: of the records.
            command: that measures it.
            anywhere: take those of all machines: for what does not depend on the machine, as times do.

        Raises:
            MissingError: there is none.
        """
        answers = [r for r in self.records if r["benchmark"] == benchmark and "skipped" not in r]
        found = {json.dumps([r.get(member) for member in members], sort_keys=True): r for r in answers}
        if not found:
            raise MissingError(command)
        latest = machine(answers[-1])
        return [record for record in found.values() if anywhere or machine(record) == latest]

    def any(self, benchmark: str, *members: str, anywhere: bool = False) -> list[Record]:
        """The same, or an empty list."""
        try:
            return self.newest(benchmark, *members, command="", anywhere=anywhere)
        except MissingError:
            return []

    def skipped(self) -> list[Record]:
        """Peers whose newest record says that they cannot run."""
        last = {
            record["peer"] if record["benchmark"] == "peers" else record["system"]: record
            for record in self.records
            if "peer" in record
        }
        return [record for record in last.values() if "skipped" in record]


def machine(record: Record) -> tuple[Any, ...]:
    """Returns the members that identify a kind of machine."""
    return tuple(record.get(member) for member in MACHINE)
