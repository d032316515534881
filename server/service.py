"""The service container: the parts of one serving process, and how they start and stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ciphershift.errors import NotReadyError
from ciphershift.server import logs
from ciphershift.server.api.feed import JobFeed
from ciphershift.server.api.limits import TenantLimits
from ciphershift.server.api.profile import profile_of
from ciphershift.server.engine import make_engine
from ciphershift.server.metrics import Metrics
from ciphershift.server.notifier import Notifier
from ciphershift.server.repository import Repository
from ciphershift.server.runner import OUTAGES, JobRunner, outages_logged
from ciphershift.server.settings import Settings
from ciphershift.server.store import orphans
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database, Job
from ciphershift.server.store.jobs import JobStore
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.model_states import ModelStates
from ciphershift.server.store.states import FINISHED
from ciphershift.server.store.tenants import Caller, TenantStore
from ciphershift.server.tracing import Tracing

PAUSES = {"sweep": 1.0, "watch": 0.25, "orphans": 3600.0}  # seconds between two rounds of each background task
LATE_SECONDS = 30.0  # after which a background task counts as failed
CACHE_SECONDS = 1.0  # for which answers to monitoring are kept
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
        self.repository = Repository(settings, lambda model: profile_of(model, settings.max_batch))
        for name, entry in self.repository.entries.items():
            if entry.model is None:
                _log.warning("model_refused", model=name, reason=entry.reason)
        self.models = ModelStates(self.database, self.repository)
        self.jobs = JobStore(self.database, self.blobs, settings)
        self.keys = KeyStore(self.database, self.blobs, settings, lambda: self.repository.key_bytes)
        self.tenants = TenantStore(self.database)
        self.notifier = Notifier()
        self.feed = JobFeed(self.jobs)
        self.limits = TenantLimits()
        self.metrics = Metrics()
        self.tracing = Tracing(settings.traces)
        self._open_caller: Caller | None = None
        self._metrics_text = (0.0, b"")
        self._checked: tuple[float, NotReadyError | None] = (0.0, None)
        self._alive: dict[str, float] = {}  # when each background task last did its work
        engine = make_engine(settings)
        self.runner = (
            None
            if engine is None
            else JobRunner(settings, self.jobs, self.keys, engine, self.notifier, self.metrics, self.tracing)
        )
        self._drain: asyncio.Task[None] | None = None
        self._revisions: dict[str, int] = {}

    async def start(self) -> None:
        """Starts the job runner, if there is one, and the background tasks."""
        await asyncio.to_thread(self.models.follow)
        if self.runner is not None:
            self.runner.start()
        tasks = {"sweep": self._sweep, "watch": self._watch, "orphans": self._sweep_orphans}
        self._tasks = [asyncio.create_task(self._repeat(name, work, PAUSES[name])) for name, work in tasks.items()]

    def caller(self, authorization: str | None) -> Caller:
        """Returns the caller that an Authorization header names; without API keys, everybody's one tenant. Blocks.

        Raises:
            UnauthorizedError: it names none.
        """
        if not self.settings.open:
            return self.tenants.authenticate(authorization)
        if self._open_caller is None:
            self._open_caller = self.tenants.open()
        return self._open_caller

    async def metrics_text(self) -> bytes:
        """Returns the metrics in Prometheus' text format, made at most once a second."""
        made, text = self._metrics_text
        if time.monotonic() - made > CACHE_SECONDS:
            text = self.metrics.text(await asyncio.to_thread(self.jobs.waiting))
            self._metrics_text = time.monotonic(), text
        return text

    def cancel(self, job: Job) -> Job:
        """Cancels an unfinished job; deletes the result of a finished one. Raises what JobStore.cancel raises."""
        job, ended = self.jobs.cancel(job.tenant_id, job.id)
        if ended:
            self.metrics.jobs.labels(job.model, job.state).inc()
        return job

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
        """Whether the drain is over: whoever still waits for a job here should come back to another process."""
        return self._drain is not None and self._drain.done()

    async def stop(self) -> None:
        """Drains, then stops the background tasks and closes the database."""
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.database.close()
        await asyncio.to_thread(self.tracing.close)

    async def check(self) -> None:
        """Returns if requests would be served.

        Raises:
            NotReadyError: the message says what is missing.
        """
        if self.draining:
            raise NotReadyError("the server is stopping")
        if self.runner is not None and not self.runner.ready:
            raise NotReadyError("the workers are starting: try again in a few seconds")
        checked, reason = self._checked
        if time.monotonic() - checked > CACHE_SECONDS:
            reason = await self._missing()
            self._checked = time.monotonic(), reason
        if reason is not None:
            raise NotReadyError(reason.message)

    async def _missing(self) -> NotReadyError | None:
        late = [name for name, last in self._alive.items() if time.monotonic() - last > LATE_SECONDS + PAUSES[name]]
        if late:
            return NotReadyError(f"a background task has failed ({', '.join(late)}): the server's log has the reason")
        ready = False
        with outages_logged("check"):
            await asyncio.to_thread(self.blobs.check)
            ready = await asyncio.to_thread(self.jobs.slots) > 0
        if ready:
            return None
        return NotReadyError(
            "database or object store unreachable or full, or no live worker (start one: ciphershift worker)"
        )

    async def _do_drain(self) -> None:
        _log.info("draining")
        if self.runner is not None:
            await self.runner.drain()

    async def _repeat(self, name: str, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Supervises a background task: it goes on after any error, and `check` tells if it no longer does its work."""
        self._alive[name] = time.monotonic()
        while True:
            try:
                await work()
                self._alive[name] = time.monotonic()
            except OUTAGES as error:
                _log.error("outage", what=name, error=type(error).__name__)
            except Exception:
                _log.exception("background_task_failed", task=name)
            await asyncio.sleep(seconds)

    async def _sweep(self) -> None:
        await asyncio.to_thread(self.models.follow)
        for job in await asyncio.to_thread(self.jobs.sweep):
            if job.state in FINISHED:  # no runner counts these
                self.metrics.jobs.labels(job.model, job.state).inc()
            self.notifier.notify(job.id)

    async def _watch(self) -> None:
        job_ids = self.notifier.job_ids()
        found = await asyncio.to_thread(self.jobs.revisions, job_ids) if job_ids else {}
        for job_id in job_ids:
            if job_id not in found or found[job_id] != self._revisions.get(job_id):
                self.notifier.notify(job_id)
        self._revisions = found

    async def _sweep_orphans(self) -> None:
        await asyncio.to_thread(orphans.sweep, self.database, self.blobs)
