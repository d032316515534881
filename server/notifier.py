"""In-process change notifications, so that waiters do not poll the database.

A wake-up is only a hint: re-read the state. Changes made by this process notify at once; changes made by other processes are found by one
watcher for all waiters (Service), so that a thousand of them cost one query.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

QUEUE = "queue"  # the topic of waiting jobs; every other topic is a job id


class Notifier:
    """Events of one event loop, by topic."""

    def __init__(self) -> None:
        self._events: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def subscribe(self, topic: str) -> asyncio.Event:
        """Returns the event that the next change of a topic sets. Subscribe before reading, to avoid a lost wake-up."""
        return self._events.setdefault(topic, asyncio.Event())

    def job_ids(self) -> list[str]:
        """Returns the jobs that have a subscriber."""
        return [topic for topic in self._events if topic != QUEUE]

    def notify(self, topic: str) -> None:
        """Wakes every subscriber of a topic."""
        event = self._events.pop(topic, None)
        if event is not None:
            event.set()


async def notified(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event for at most `seconds`; returns whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()
