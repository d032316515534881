"""Worker processes on this machine: a bounded queue before a pool that is built anew when a worker dies.

Work never runs in the event loop nor in its threads. Workers are spawned, not forked: a fork would copy the state of random
generators and of thread pools.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from he_layers.crypto.errors import BusyError, DeadlineError, WorkerLostError
from server.engine import worker
from server.engine.worker import Answer, Task
from server.settings import Settings

GRACE_SECONDS = 5.0


class LocalEngine:
    """A pool of worker processes."""

    def __init__(self, settings: Settings) -> None:
        """Takes note of the settings; processes start with `start`."""
        self._settings = settings
        self._waiting = 0

    def start(self) -> None:
        """Starts the workers; `ready` turns true when one has loaded every model and answered."""
        self._pool = ProcessPoolExecutor(
            self._settings.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=worker.initialise,
            initargs=(self._settings,),
        )
        self._first: Future[None] = self._pool.submit(worker.ping)

    @property
    def ready(self) -> bool:
        """Whether a worker has answered."""
        return self._first.done() and self._first.exception() is None

    async def stop(self) -> None:
        """Ends the workers; work that waits is dropped, work that runs is finished."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def infer(self, model: str, key_id: str, key_file: Path, images: Sequence[bytes]) -> Answer:
        """Evaluates a model on encrypted images.

        Raises:
            BusyError: as many requests wait as may.
            DeadlineError: the answer was not there in time.
            WorkerLostError: the worker died; the next request gets a new one.
            HEServiceError: what the worker found wrong with keys or images.
        """
        if self._waiting >= self._settings.workers + self._settings.queue_depth:
            raise BusyError(f"{self._waiting} requests are being served or wait: try again later")
        seconds = self._settings.deadline_seconds
        task = Task(model=model, key_id=key_id, key_file=key_file, images=tuple(images), deadline=time.time() + seconds)
        self._waiting += 1
        try:
            # The worker keeps the deadline between two layers; the grace is for the one layer that it cannot interrupt.
            return await asyncio.wait_for(self._submit(task), seconds + GRACE_SECONDS)
        except TimeoutError:
            raise DeadlineError(f"the answer was not there after {seconds:g} s") from None
        finally:
            self._waiting -= 1

    async def _submit(self, task: Task) -> Answer:
        pool = self._pool
        try:
            future: Future[Answer] = pool.submit(worker.infer, task)
            return await asyncio.wrap_future(future)
        except BrokenProcessPool:
            if self._pool is pool:
                pool.shutdown(wait=False)
                self.start()
            raise WorkerLostError("the worker process died under this request: send it again") from None
