"""Worker processes on this machine. A thread per worker starts the process, sends it tasks, and restarts it when it dies.

Tasks never run in the event loop or its threads. Workers are spawned, not forked: a fork would copy the state of random
generators and thread pools. They run at a lower priority, so that the server answers while they use all cores.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ciphershift.errors import CiphershiftError, DeadlineError, WorkerLostError
from ciphershift.server import logs
from ciphershift.server.engine.base import LayerProgress, Stopped, Task, TaskResult, WorkerState
from ciphershift.server.engine.worker import KernelWorker, Worker
from ciphershift.server.settings import Settings

GRACE_SECONDS = 5.0  # for the layer during which the deadline passes: it cannot be interrupted
POLL_SECONDS = 0.1  # between two checks for cancellation and shutdown
NICENESS = 10
_log = logging.getLogger("ciphershift.engine")


@dataclass(frozen=True, slots=True)
class _Assignment:
    """A task, how to report on it, and where its result goes."""

    task: Task
    report: Callable[[LayerProgress], None]
    stop: threading.Event = field(default_factory=threading.Event)
    result: Future[TaskResult] = field(default_factory=Future)


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._assignments: queue.SimpleQueue[_Assignment] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._states: dict[str, WorkerState] = {}
        self._threads: list[threading.Thread] = []

    @property
    def slots(self) -> int:
        """How many tasks are evaluated at once."""
        return self._settings.engine_url.workers

    @property
    def workers(self) -> dict[str, WorkerState]:
        """The workers that are ready, by name."""
        return dict(self._states)

    def start(self) -> None:
        """Starts the worker threads, which start the processes."""
        for number in range(self.slots):
            name = f"worker-{number}"
            thread = threading.Thread(target=self._supervise, args=(name,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    async def stop(self) -> None:
        """Ends the workers and the tasks they evaluate."""
        self._ending.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        with suppress(queue.Empty):
            while True:
                self._assignments.get_nowait().result.set_exception(WorkerLostError("the server is stopping"))

    async def run(self, task: Task, report: Callable[[LayerProgress], None]) -> TaskResult:
        """Evaluates a task, see Engine.run."""
        loop = asyncio.get_running_loop()

        def forward(layer: LayerProgress) -> None:
            loop.call_soon_threadsafe(report, layer)

        assignment = _Assignment(task, forward)
        self._assignments.put(assignment)
        result = asyncio.wrap_future(assignment.result)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            assignment.stop.set()
            with suppress(CiphershiftError, Stopped):
                await result
            raise

    def _supervise(self, name: str) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            process = _Process(self._settings)
            try:
                process.wait_until_ready(self._ending)
                self._record_state(name, process)
                pause = 0.0
                while process.is_alive() and not self._ending.is_set():
                    with suppress(queue.Empty):
                        self._serve(name, process, self._assignments.get(timeout=POLL_SECONDS))
            except WorkerLostError:  # it died before it was ready, and the next one may, too: wait longer each time
                pause = min(2 * pause + 0.5, 10.0)
            finally:
                self._states.pop(name, None)
                process.end()
                if not self._ending.is_set():
                    _log.warning("worker_lost", extra={"worker": name, "exit": process.exit_code})

    def _serve(self, name: str, process: _Process, assignment: _Assignment) -> None:
        try:
            result = process.run(assignment, self._ending)
        except (CiphershiftError, Stopped) as error:
            assignment.result.set_exception(error)
        else:
            assignment.result.set_result(result)
        self._record_state(name, process)

    def _record_state(self, name: str, process: _Process) -> None:
        assert process.state is not None, "a worker reports its state first"
        self._states[name] = process.state


class _Process:
    """One spawned worker process and the pipe to it."""

    def __init__(self, settings: Settings) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, child_end = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(settings.for_workers(), child_end), daemon=True)
        self._process.start()
        child_end.close()
        self.state: WorkerState | None = None

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def wait_until_ready(self, ending: threading.Event) -> None:
        """Waits for the worker's first report. Raises WorkerLostError, also if the server stops meanwhile."""
        while self.state is None:
            if ending.is_set():
                raise WorkerLostError("the server is stopping")
            message = self._receive()
            if isinstance(message, CiphershiftError):
                _log.error("worker_refused", extra={"detail": message.message})
                raise WorkerLostError(message.message)
            self.state = message

    def run(self, assignment: _Assignment, ending: threading.Event) -> TaskResult:
        """Evaluates an assignment. Raises what Engine.run raises, and Stopped."""
        self._send(assignment.task)
        stop_sent = False
        while True:
            message = self._receive()
            match message:
                case LayerProgress():
                    assignment.report(message)
                case WorkerState():
                    self.state = message
                case TaskResult():
                    return message
                case CiphershiftError() | Stopped():
                    raise message
            if assignment.stop.is_set() and not stop_sent:
                self._send(assignment.task.job_id)
                stop_sent = True
            if ending.is_set():
                self.end()
                raise WorkerLostError("the server is stopping")
            if time.time() > assignment.task.deadline + GRACE_SECONDS:
                self.end()
                raise DeadlineError(
                    f"the job's deadline passed and its worker did not stop within {GRACE_SECONDS:g} s: the worker was ended"
                )

    def _send(self, message: Task | str) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._lost() from None

    def _receive(self) -> Any:
        """The next message; None if there is none within POLL_SECONDS. Raises WorkerLostError."""
        try:
            return self._pipe.recv() if self._pipe.poll(POLL_SECONDS) else None
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> WorkerLostError:
        """Ends the process for good: a pipe breaks before its process counts as dead, which would take the next task, too."""
        self.end()
        return WorkerLostError("the worker process died under this job")


def serve(settings: Settings, pipe: Connection) -> None:
    """Worker entry point. A `Task` on the pipe is evaluated; a `str` cancels the job with that id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts the whole group: the server drains
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # likewise when the whole group is stopped
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    logs.configure(settings.log_level)
    try:
        worker = _make_worker(settings)
    except CiphershiftError as error:
        pipe.send(error)
        return
    pipe.send(worker.state)
    while True:
        task = pipe.recv()
        if isinstance(task, Task):
            outcome = _evaluate(worker, task, pipe)
            pipe.send(worker.state)
            pipe.send(outcome)


def _make_worker(settings: Settings) -> Worker[Any]:
    url = settings.engine_url
    if url.scheme == "torch":
        from ciphershift.server.engine.device import DeviceWorker

        return DeviceWorker(settings, url.threads)
    return KernelWorker(settings, url.threads)


def _evaluate(worker: Worker[Any], task: Task, pipe: Connection) -> TaskResult | CiphershiftError | Stopped:
    try:
        for item in worker.run(task):
            if isinstance(item, TaskResult):
                return item
            pipe.send(item)
            if pipe.poll() and pipe.recv() == task.job_id:
                return Stopped()
        raise AssertionError("Worker.run ends with a result or an error")
    except CiphershiftError as error:
        return error
    except Exception as error:  # a fault of ours must not reach the other jobs
        _log.exception("job %s failed", task.job_id)
        return CiphershiftError(f"the worker failed ({type(error).__name__}); the server's log says why")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child of the server"
    parent.join()
    os._exit(1)
