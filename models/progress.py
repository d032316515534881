"""Progress reports of long computations."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """``done`` of ``total`` parts of a stage are over; ``state`` is a line on how it goes, or empty."""

    done: int
    total: int
    state: str = ""

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.state}".rstrip()


Show = Callable[[str, Step], None]
"""Called with the name of a stage after each of its steps."""
