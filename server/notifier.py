"""Bells in the event loop: whoever waits for a job need not ask the database all the time.

A bell is a hint, never the truth: whoever hears it looks. What this process does itself rings at once; what other processes do is seen by
one watcher for all who wait (Service), so that a thousand of them cost one query.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

QUEUE = "queue"  # rings when a job is waiting; the other bells are named after jobs


class Changes:
    """The bells of one event loop."""

    def __init__(self) -> None:
        """Starts without any."""
        self._bells: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def bell(self, name: str) -> asyncio.Event:
        """Returns the bell that the next change rings. Take it before you look, lest a change falls between look and wait."""
        return self._bells.setdefault(name, asyncio.Event())

    def jobs(self) -> list[str]:
        """Returns the jobs that somebody waits for."""
        return [name for name in self._bells if name != QUEUE]

    def ring(self, name: str) -> None:
        """Says that something has changed."""
        bell = self._bells.pop(name, None)
        if bell is not None:
            bell.set()


async def ringing(bell: asyncio.Event, seconds: float) -> bool:
    """Waits until the bell rings, or for so long; returns whether it has rung."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        pass
    return bell.is_set()
