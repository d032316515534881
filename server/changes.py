"""Bells in the event loop: whoever waits for a job of this process need not ask the database all the time.

A bell is a hint, never the truth: other processes' changes ring none, so that a waiter looks again now and then anyway.
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

    def ring(self, name: str) -> None:
        """Says that something has changed."""
        bell = self._bells.pop(name, None)
        if bell is not None:
            bell.set()


async def ringing(bell: asyncio.Event, seconds: float) -> None:
    """Waits until the bell rings, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        pass
