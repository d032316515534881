"""Systems as points of accuracy and cost, and the fit of time to look-ups, for several tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.results import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One system with its accuracy on all test images, and what it costs for one image.

    Attributes:
        kind: "ciphershift", or a peer's activation.
        record: what was measured, or published.
        published: whether the time is its authors', on their hardware.
    """

    label: str
    kind: str
    accuracy: float
    seconds: float
    upload_bytes: int
    key_bytes: int
    record: Record
    published: bool = False


def points(records: Iterable[Record]) -> list[Point]:
    """Returns a point for each record of `peers` that has a network; the accuracy of ours is simulated with the circuit's noise."""
    return [
        Point(
            label=record["system"].replace("ciphershift, ", ""),
            kind="ciphershift" if record["peer"] == "ciphershift" else record["activation"],
            accuracy=record["accuracy_simulated" if "accuracy_simulated" in record else "accuracy_clear"],
            seconds=record["seconds_per_image"],
            upload_bytes=record["upload_bytes"] or 0,
            key_bytes=record["key_bytes"] or 0,
            record=record,
        )
        for record in records
        if record.get("accuracy_clear") is not None
    ]


@dataclass(frozen=True, slots=True)
class Fit:
    """seconds = start + each * lookups, by least squares on relative errors; ``exponent`` of a power law through the same points."""

    start: float
    each: float
    exponent: float

    @classmethod
    def of(cls, records: Sequence[Record]) -> Fit:
        """Needs records of at least two widths."""
        lookups = np.array([record["lookups"] for record in records], dtype=float)
        seconds = np.array([record["median_s"] for record in records])
        (start, each), *_ = np.linalg.lstsq(
            np.stack([1 / seconds, lookups / seconds], axis=1), np.ones(len(seconds)), rcond=None
        )
        exponent = np.polyfit(np.log(lookups), np.log(seconds), 1)[0]
        return cls(float(start), float(each), float(exponent))

    def seconds(self, lookups: NDArray[np.float64] | float) -> Any:
        """The fitted seconds."""
        return self.start + self.each * lookups

    @property
    def text(self) -> str:
        """The formula as text."""
        return f"{self.start:.2f} s + {1e3 * self.each:.2f} ms for each"
