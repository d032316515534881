"""The runner: takes waiting jobs from the database, has an engine compute them, and writes what becomes of them.

The same code runs inside the server process and in `ciphershift worker`; any number of runners share one queue.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from ciphershift.errors import CiphershiftError
from ciphershift.protocol import tensors
from ciphershift.server import logs
from ciphershift.server.engine.base import Answer, Engine, Step, Task
from ciphershift.server.metrics import Metrics
from ciphershift.server.notifier import QUEUE, Changes, ringing
from ciphershift.server.settings import Settings
from ciphershift.server.store import jobs as states
from ciphershift.server.store.database import Job
from ciphershift.server.store.jobs import JobStore
from ciphershift.server.store.keys import KeyStore

POLL_SECONDS = 0.5  # between two looks for jobs that another process has accepted
TICK_SECONDS = 0.25  # between two looks at a running job: progress out, cancellation in
P = ParamSpec("P")
T = TypeVar("T")
_log = logs.get("runner")


class Runner:
    """Computes jobs, as many at once as its engine has slots."""

    def __init__(
        self, settings: Settings, jobs: JobStore, keys: KeyStore, engine: Engine, changes: Changes, metrics: Metrics
    ) -> None:
        """Takes note; `start` begins."""
        self.id = uuid.uuid4().hex
        self.engine = engine
        self._settings = settings
        self._jobs = jobs
        self._keys = keys
        self._changes = changes
        self._metrics = metrics
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded every model and answered, and jobs are taken."""
        return bool(self.engine.workers) and not self._draining

    def start(self) -> None:
        """Starts the engine, and takes jobs as soon as it has a worker."""
        self.engine.start()
        self._metrics.watch(lambda: self.engine.workers)
        self._heart = asyncio.create_task(self._beat())
        self._tasks = [asyncio.create_task(self._lane()) for _ in range(self.engine.slots)]

    async def drain(self) -> None:
        """Takes no more jobs, waits for the running ones for a while, and lets the others wait for another runner."""
        self._draining = True
        self._changes.ring(QUEUE)
        _, running = await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._heart.cancel()
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(self._jobs.leave, self.id)
        await self.engine.stop()

    async def _beat(self) -> None:
        while True:
            slots = self.engine.slots if self.engine.workers else 0
            with surviving("beat"):
                await asyncio.to_thread(self._jobs.beat, self.id, slots)
            await asyncio.sleep(self._settings.lease_seconds / 4 if slots else TICK_SECONDS)

    async def _lane(self) -> None:
        while not self._draining:
            bell = self._changes.bell(QUEUE)
            job = None
            with surviving("claim"):
                job = await asyncio.to_thread(self._jobs.claim, self.id) if self.engine.workers else None
            if job is None:
                await ringing(bell, POLL_SECONDS)
            else:
                with structlog.contextvars.bound_contextvars(job=job.id, model=job.model, attempt=job.attempt):
                    await self._compute(job)

    async def _compute(self, job: Job) -> None:
        assert job.started is not None, "a claimed job has been started"
        self._metrics.queue_seconds.observe(job.started - job.created)
        self._changes.ring(job.id)
        _log.info("job_started", images=job.images, waited=round(job.started - job.created, 3))
        try:
            answer = await self._run(job)
        except CiphershiftError as error:
            state = await _persisted(self._jobs.fail, job, error)
            self._changes.ring(QUEUE)
            _log.warning("job_failed", code=error.code, detail=error.message, state=state)
        except asyncio.CancelledError:  # the runner drains
            await asyncio.to_thread(self._jobs.release, job)
            _log.info("job_released")
            raise
        else:
            if answer is None:
                state = await _persisted(self._jobs.stop, job)
            else:
                tensor = tensors.join_elements(answer.logits)
                state = await _persisted(self._jobs.finish, job, tensor, answer.seconds, answer.key_seconds)
            _log.info("job_ended", state=state, seconds=round(time.time() - job.started, 3))
        if state in states.FINISHED:
            self._metrics.jobs.labels(job.model, state).inc()
        self._changes.ring(job.id)

    async def _run(self, job: Job) -> Answer | None:
        """The engine's answer; None if the job was canceled, or given to another runner, meanwhile."""
        task = await _persisted(self._task, job)
        steps: list[Step] = []
        running = asyncio.create_task(self.engine.run(task, lambda step: self._observe(job, steps, step)))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=TICK_SECONDS)
                if not running.done() and not await self._goes_on(job, steps):
                    return None
                self._changes.ring(job.id)
            return running.result()
        finally:
            running.cancel()
            await asyncio.wait({running})

    def _task(self, job: Job) -> Task:
        try:
            images = tensors.split_elements(self._jobs.images(job))
        except FileNotFoundError:
            raise CiphershiftError("the job's images are not in the store any more") from None
        return Task(
            job_id=job.id,
            model=job.model,
            model_digest=job.model_digest,
            key_id=job.key_id,
            key_file=self._keys.file(job.tenant_id, job.key_id),
            images=tuple(images),
            deadline=job.deadline,
        )

    def _observe(self, job: Job, steps: list[Step], step: Step) -> None:
        before = steps[-1].bootstraps_done if steps else 0
        self._metrics.compute_seconds.labels(job.model, step.layer).observe(step.seconds)
        self._metrics.bootstraps.labels(job.model).inc(step.bootstraps_done - before)
        steps.append(step)

    async def _goes_on(self, job: Job, steps: list[Step]) -> bool:
        """Whether the job is still wanted here; writes down how far it is, if there is news."""
        with surviving("advance"):
            return await asyncio.to_thread(self._jobs.advance, job, steps[-1] if steps else None)
        return True


async def _persisted(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Makes a call in a thread; as often as it takes while database or store are away."""
    while True:
        with surviving(call.__name__):
            return await asyncio.to_thread(call, *args, **kwargs)
        await asyncio.sleep(1.0)


@contextmanager
def surviving(what: str) -> Iterator[None]:
    """Lives through an outage of database or store, which the log tells."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        _log.error("outage", what=what, error=type(error).__name__)
