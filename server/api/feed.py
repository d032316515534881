"""The state of jobs for event streams: read and written as JSON once for each change, however many follow the job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ciphershift.server.api import schemas
from ciphershift.server.store.database import Job
from ciphershift.server.store.jobs import JobStore
from ciphershift.server.store.states import PENDING


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job and what the API shows of it."""

    job: Job
    json: str


class JobFeed:
    """Snapshots, shared by all who wait for the same notification."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._reads: WeakKeyDictionary[asyncio.Event, asyncio.Task[Snapshot]] = WeakKeyDictionary()

    async def read(self, changed: asyncio.Event, job: Job) -> Snapshot:
        """Returns the job as it is now.

        Args:
            changed: the event of `Notifier.subscribe`. While it is not set there was no change, so that one read serves all.
            job: as it was.

        Raises:
            UnknownJobError: the job is no longer there.
        """
        task = self._reads.get(changed)
        if task is None or (task.done() and task.exception() is not None):
            task = self._reads[changed] = asyncio.create_task(asyncio.to_thread(self._read, job))
        return await asyncio.shield(task)

    def _read(self, job: Job) -> Snapshot:
        current = self._jobs.get(job.tenant_id, job.id)
        ahead = self._jobs.ahead(current) if current.state == PENDING else None
        return Snapshot(current, schemas.view(current, ahead).model_dump_json())
