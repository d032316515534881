"""A progress bar with the remaining time, drawn only between two items, so that it does not disturb a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def watched(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the items; shows how many are done on stderr, where it is a terminal.

    Args:
        items: to go through.
        what: is gone through.
        total: how many there are; not needed for what has a length.
    """
    console = Console(stderr=True)
    yield from track(
        items, what, total, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    )
