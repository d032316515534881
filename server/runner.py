"""The job runner: claims waiting jobs from the database, has an engine evaluate them, and stores the results.

The same code runs inside `ciphershift serve` and in `ciphershift worker`; any number of runners share one queue.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ParamSpec, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from ciphershift.errors import CiphershiftError, UnknownKeyError
from ciphershift.protocol import tensors
from ciphershift.server import logs
from ciphershift.server.engine.base import Engine, LayerProgress, Task, TaskResult
from ciphershift.server.metrics import Metrics
from ciphershift.server.notifier import QUEUE, Notifier, notified
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Job
from ciphershift.server.store.jobs import JobStore
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.states import FINISHED
from ciphershift.server.tracing import Tracing

POLL_SECONDS = 0.5  # between two queries for jobs that another process has accepted
STOP_SECONDS = 0.5  # for running jobs to stop by themselves at the end of a drain, before their workers are ended
TICK_SECONDS = 0.25  # between two updates of a running job: progress is written, a cancellation is read
OUTAGES = (SQLAlchemyError, OSError)  # of database and store
P = ParamSpec("P")
T = TypeVar("T")
_log = logs.get("runner")


class JobRunner:
    """Evaluates jobs, as many at once as its engine has slots."""

    def __init__(
        self,
        settings: Settings,
        jobs: JobStore,
        keys: KeyStore,
        engine: Engine,
        notifier: Notifier,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.engine = engine
        self._settings = settings
        self._jobs = jobs
        self._keys = keys
        self._notifier = notifier
        self._metrics = metrics
        self._tracing = tracing
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded its models and jobs are claimed."""
        return bool(self.engine.workers) and not self._draining

    def start(self) -> None:
        """Starts the engine; jobs are claimed as soon as it has a worker."""
        self.engine.start()
        self._metrics.watch(lambda: self.engine.workers)
        self._heartbeat = asyncio.create_task(self._beat())
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self.engine.slots)]

    async def drain(self) -> None:
        """Claims no more jobs, lets running ones finish within `drain_seconds`, and returns the others to the queue."""
        self._draining = True
        self._notifier.notify(QUEUE)
        _, running = await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        for task in running:
            task.cancel()
        if running:  # a worker stops between two layers, if that is soon
            await asyncio.wait(running, timeout=STOP_SECONDS)
        await self.engine.stop()
        await asyncio.gather(*running, return_exceptions=True)
        self._heartbeat.cancel()
        with outages_logged("leave"):
            await asyncio.to_thread(self._jobs.leave, self.id)

    async def _beat(self) -> None:
        while True:
            slots = self.engine.slots if self.engine.workers else 0
            with failures_logged("beat"):
                await asyncio.to_thread(self._jobs.beat, self.id, slots)
            await asyncio.sleep(self._settings.lease_seconds / 4 if slots else TICK_SECONDS)

    async def _work(self) -> None:
        while not self._draining:
            event = self._notifier.subscribe(QUEUE)
            job = None
            with failures_logged("claim"):
                job = await self._claim() if self.engine.workers else None
            if job is None:
                await notified(event, POLL_SECONDS)
            else:
                with (
                    structlog.contextvars.bound_contextvars(job=job.id, model=job.model, attempt=job.attempt),
                    failures_logged("job"),
                    self._tracing.span(
                        "job",
                        job.traceparent,
                        {"ciphershift.job": job.id, "ciphershift.model": job.model, "ciphershift.images": job.images},
                    ),
                ):
                    await self._compute(job)

    async def _claim(self) -> Job | None:
        """The next job; one that is claimed while the runner drains is released."""
        claiming = asyncio.create_task(asyncio.to_thread(self._jobs.claim, self.id))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # the thread goes on
            with failures_logged("release"):
                if job := await claiming:
                    await asyncio.to_thread(self._jobs.release, job)
            raise

    async def _compute(self, job: Job) -> None:
        assert job.started is not None, "a claimed job has been started"
        if not job.images_kept:
            self._metrics.queue_seconds.observe(job.started - job.created)
        self._notifier.notify(job.id)
        _log.info("job_started", images=job.images, kept=job.images_kept, waited=round(job.started - job.created, 3))
        try:
            state = await self._evaluate(job)
        except CiphershiftError as error:
            state = await _persisted(self._jobs.fail, job, error)
            self._notifier.notify(QUEUE)
            _log.warning("job_failed", code=error.code, detail=error.message, state=state)
        except Exception as error:
            _log.exception("job_failed", error=type(error).__name__)
            fault = CiphershiftError("the server failed to evaluate the job; its log has the reason")
            state = await _persisted(self._jobs.fail, job, fault)
        except asyncio.CancelledError:  # the runner drains
            with outages_logged("release"):
                await asyncio.to_thread(self._jobs.release, job)
                _log.info("job_released")
            raise
        else:
            _log.info("job_ended", state=state, seconds=round(time.time() - job.started, 3))
        if state in FINISHED:
            self._metrics.jobs.labels(job.model, state).inc()
        self._notifier.notify(job.id)

    async def _evaluate(self, job: Job) -> str | None:
        """Evaluates a job's images, some at a time, until it is finished or another tenant has its turn; returns the job's state."""
        images = await _persisted(self._images, job)
        turn, pace = self._settings.turn_images(job.bootstraps_total // job.images), _Pace()
        while True:
            some = images[job.images_kept : job.images_kept + turn]
            try:
                result = await self._run(job, some, pace)
            except _TurnOver:
                self._notifier.notify(QUEUE)
                return None
            if result is None:
                return await _persisted(self._jobs.stop, job)
            if job.images_kept + len(some) == job.images:
                tensor = tensors.join_elements(result.logits)
                return await _persisted(self._jobs.finish, job, tensor, result.seconds, result.key_seconds)
            answers = [tensors.join_elements([answer]) for answer in result.logits]
            if not await _persisted(self._jobs.keep, job, answers, result.seconds, result.key_seconds):
                self._notifier.notify(QUEUE)
                return None

    async def _run(self, job: Job, images: Sequence[bytes], pace: _Pace) -> TaskResult | None:
        """The engine's result; None if the job was canceled or claimed by another runner meanwhile.

        Raises:
            _TurnOver: what has been computed is saved, and the job waits again, since another tenant is next.
        """
        task, blob = await _persisted(self._task, job, images)
        layers: list[LayerProgress] = []
        saved = 0
        trace = self._tracing.current()
        running = asyncio.create_task(self.engine.run(task, lambda layer: self._observe(job, layers, layer, trace)))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=TICK_SECONDS)
                if not running.done() and not await self._goes_on(job, layers, pace):
                    return None
                self._notifier.notify(job.id)
                if layers and layers[-1].lookups_saved > max(saved, layers[0].lookups_saved):
                    saved = layers[-1].lookups_saved
                    await self._offer_turn(job, saved)
            return running.result()
        except UnknownKeyError:  # the blob is missing or damaged
            await _persisted(self._keys.forget, job.tenant_id, job.key_id, blob)
            raise
        finally:
            running.cancel()
            await asyncio.wait({running})

    def _images(self, job: Job) -> list[bytes]:
        try:
            return tensors.split_elements(self._jobs.images(job))
        except FileNotFoundError:
            raise CiphershiftError("the job's images are no longer in the store: send them again") from None

    def _task(self, job: Job, images: Sequence[bytes]) -> tuple[Task, str]:
        file, blob = self._keys.file(job.tenant_id, job.key_id)
        task = Task(
            job_id=job.id,
            model=job.model,
            model_digest=job.model_digest,
            key_id=job.key_id,
            key_file=file,
            images=tuple(images),
            deadline=job.deadline,
            checkpoint=self._jobs.checkpoint(job),
        )
        return task, blob

    def _observe(self, job: Job, layers: list[LayerProgress], layer: LayerProgress, trace: str | None) -> None:
        kept = job.bootstraps_total * job.images_kept // job.images
        of_job = replace(
            layer,
            lookups_done=kept + layer.lookups_done,
            lookups_saved=kept + layer.lookups_saved,
            images_done=job.images_kept + layer.images_done,
        )
        before = layers[-1].lookups_done if layers else of_job.lookups_saved
        self._metrics.compute_seconds.labels(job.model, layer.layer).observe(layer.seconds)
        self._tracing.record(layer.layer, trace, layer.seconds, {"ciphershift.lookups": of_job.lookups_done - before})
        self._metrics.bootstraps.labels(job.model).inc(of_job.lookups_done - before)
        layers.append(of_job)

    async def _goes_on(self, job: Job, layers: list[LayerProgress], pace: _Pace) -> bool:
        """Whether the job is still wanted here; stores its progress if there is any."""
        newest = layers[-1] if layers else None
        ready_at = pace.ready_at(layers, job.bootstraps_total) if layers else None
        with outages_logged("advance"):
            return await asyncio.to_thread(self._jobs.advance, job, newest, ready_at)
        return True

    async def _offer_turn(self, job: Job, saved: int) -> None:
        with outages_logged("pause"):
            if await asyncio.to_thread(self._jobs.pause, job, saved):
                raise _TurnOver


class _TurnOver(Exception):  # noqa: N818 - not an error: a long job has made way for another tenant's
    """See JobRunner._run."""


class _Pace:
    """When a job will be ready, from the look-ups of this attempt at it: those of a checkpoint took no time here."""

    def __init__(self) -> None:
        self._since = time.time()
        self._before: int | None = None

    def ready_at(self, layers: Sequence[LayerProgress], total: int) -> float | None:
        """Args: layers: that the present task has reported. total: the job's look-ups."""
        if self._before is None:
            self._before = layers[0].lookups_saved
        now, newest = time.time(), layers[-1].lookups_done
        done = newest - self._before
        return now + (now - self._since) * (total - newest) / done if done else None


async def _persisted(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Makes a call in a thread, repeated until database and store are reachable."""
    while True:
        with outages_logged(call.__name__):
            return await asyncio.to_thread(call, *args, **kwargs)
        await asyncio.sleep(1.0)


@contextmanager
def outages_logged(what: str) -> Iterator[None]:
    """Logs and suppresses transient database and storage errors."""
    try:
        yield
    except OUTAGES as error:
        _log.error("outage", what=what, error=type(error).__name__)


@contextmanager
def failures_logged(what: str) -> Iterator[None]:
    """Logs and suppresses every error: a fault in one round must not end the task that makes the rounds."""
    try:
        with outages_logged(what):
            yield
    except Exception:
        _log.exception("failed", what=what)
