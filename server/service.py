"""The service container: the parts of one serving process, and how they start and stop."""

from __future__ import annotations

import asyncio

from ciphershift.errors import NotReadyError
from ciphershift.server import logs
from ciphershift.server.engine import make_engine
from ciphershift.server.metrics import Metrics
from ciphershift.server.notifier import Notifier
from ciphershift.server.repository import Repository
from ciphershift.server.runner import JobRunner, outages_logged
from ciphershift.server.settings import Settings
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database
from ciphershift.server.store.jobs import JobStore
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.model_states import ModelStates
from ciphershift.server.store.tenants import TenantStore

SWEEP_SECONDS = 1.0
WATCH_SECONDS = 0.25  # between two reads of the jobs that somebody waits for
_log = logs.get("service")


class Service:
    """The parts of one process: an API, which may have a job runner, or a job runner alone."""

    def __init__(self, settings: Settings) -> None:
        """Opens database, store and models.

        Raises:
            NotReadyError: the database needs a migration first.
        """
        self.settings = settings
        self.database = Database.open(settings.database_url)
        self.blobs = Blobs(settings)
        self.repository = Repository(settings)
        self.models = ModelStates(self.database, self.repository)
        self.jobs = JobStore(self.database, self.blobs, settings)
        self.keys = KeyStore(self.database, self.blobs, settings, lambda: self.repository.key_bytes)
        self.tenants = TenantStore(self.database)
        self.notifier = Notifier()
        self.metrics = Metrics()
        engine = make_engine(settings)
        self.runner = (
            None if engine is None else JobRunner(settings, self.jobs, self.keys, engine, self.notifier, self.metrics)
        )
        self._drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the job runner, if there is one, and the background tasks."""
        await asyncio.to_thread(self.models.follow)
        if self.runner is not None:
            self.runner.start()
        self._tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self._watch())]

    async def drain(self) -> None:
        """Stops being ready, lets running jobs finish within `drain_seconds`, and returns the others to the queue."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._do_drain())
        await self._drain

    @property
    def draining(self) -> bool:
        """Whether the process is stopping and refuses new work."""
        return self._drain is not None

    @property
    def drained(self) -> bool:
        """Whether this process's job runner has stopped: unfinished jobs make no progress until another one starts."""
        return self.runner is not None and self._drain is not None and self._drain.done()

    async def stop(self) -> None:
        """Drains, then stops the background tasks and closes the database."""
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.database.close()

    async def check(self) -> None:
        """Returns if requests would be served.

        Raises:
            NotReadyError: the message says what is missing.
        """
        if self.draining:
            raise NotReadyError("the server is stopping")
        if self.runner is not None and not self.runner.ready:
            raise NotReadyError("the workers are starting: try again in a few seconds")
        ready = False
        with outages_logged("check"):
            await asyncio.to_thread(self.blobs.check)
            ready = await asyncio.to_thread(self.jobs.slots) > 0
        if not ready:
            raise NotReadyError(
                "database or object store unreachable, or no live worker (start one: ciphershift worker)"
            )

    async def _do_drain(self) -> None:
        _log.info("draining")
        if self.runner is not None:
            await self.runner.drain()

    async def _sweep(self) -> None:
        while True:
            with outages_logged("sweep"):
                await asyncio.to_thread(self.models.follow)
                for job_id in await asyncio.to_thread(self.jobs.sweep):
                    self.notifier.notify(job_id)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _watch(self) -> None:
        known: dict[str, int] = {}
        while True:
            with outages_logged("watch"):
                job_ids = self.notifier.job_ids()
                found = await asyncio.to_thread(self.jobs.revisions, job_ids) if job_ids else {}
                for job_id in job_ids:
                    if job_id not in found or found[job_id] != known.get(job_id):
                        self.notifier.notify(job_id)
                known = found
            await asyncio.sleep(WATCH_SECONDS)
