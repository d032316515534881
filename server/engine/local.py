"""Worker processes on this machine. Each has a lane: a thread that starts it, hands it tasks, and starts it anew when it dies.

Work never runs in the event loop nor in its threads. Workers are spawned, not forked: a fork would copy the state of random
generators and of thread pools. They run at a lower priority, so that the server answers while they compute on all cores.
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
from ciphershift.server.engine.base import Answer, Step, Stopped, Task, WorkerState
from ciphershift.server.engine.worker import Worker
from ciphershift.server.settings import Settings

GRACE_SECONDS = 5.0  # for the one layer that a worker cannot interrupt when the deadline passes
LOOK_SECONDS = 0.1  # between two looks at what no pipe announces
NICENESS = 10
_log = logging.getLogger("ciphershift.engine")


@dataclass(frozen=True, slots=True)
class _Order:
    """A task on its way through a lane."""

    task: Task
    report: Callable[[Step], None]
    stop: threading.Event = field(default_factory=threading.Event)
    answer: Future[Answer] = field(default_factory=Future)


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(self, settings: Settings) -> None:
        """Takes note of the settings; processes start with `start`."""
        self._settings = settings
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._states: dict[str, WorkerState] = {}
        self._lanes: list[threading.Thread] = []

    @property
    def slots(self) -> int:
        """How many tasks are computed at once."""
        return self._settings.engine_url.workers

    @property
    def workers(self) -> dict[str, WorkerState]:
        """The workers that are ready, by name."""
        return dict(self._states)

    def start(self) -> None:
        """Starts the lanes, which start the workers."""
        for number in range(self.slots):
            lane = threading.Thread(target=self._lane, args=(f"worker-{number}",), name=f"lane-{number}", daemon=True)
            lane.start()
            self._lanes.append(lane)

    async def stop(self) -> None:
        """Ends the workers, and what they compute."""
        self._ending.set()
        for lane in self._lanes:
            await asyncio.to_thread(lane.join)
        with suppress(queue.Empty):
            while True:
                self._orders.get_nowait().answer.set_exception(WorkerLostError("the server stops"))

    async def run(self, task: Task, report: Callable[[Step], None]) -> Answer:
        """Computes a task, see Engine.run."""
        loop = asyncio.get_running_loop()

        def forward(step: Step) -> None:
            loop.call_soon_threadsafe(report, step)

        order = _Order(task, forward)
        self._orders.put(order)
        answer = asyncio.wrap_future(order.answer)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            order.stop.set()
            with suppress(CiphershiftError, Stopped):
                await answer
            raise

    def _lane(self, name: str) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            process = _Process(self._settings)
            try:
                process.wait_until_ready(self._ending)
                self._note(name, process)
                pause = 0.0
                while process.is_alive() and not self._ending.is_set():
                    with suppress(queue.Empty):
                        self._serve(name, process, self._orders.get(timeout=LOOK_SECONDS))
            except WorkerLostError:  # before it was ready: whatever ends it may end the next one, too
                pause = min(2 * pause + 0.5, 10.0)
            finally:
                self._states.pop(name, None)
                process.end()
                if not self._ending.is_set():
                    _log.warning("worker_lost", extra={"worker": name, "exit": process.exit_code})

    def _serve(self, name: str, process: _Process, order: _Order) -> None:
        try:
            answer = process.run(order, self._ending)
        except (CiphershiftError, Stopped) as error:
            order.answer.set_exception(error)
        else:
            order.answer.set_result(answer)
        self._note(name, process)

    def _note(self, name: str, process: _Process) -> None:
        assert process.state is not None, "a worker begins with its state"
        self._states[name] = process.state


class _Process:
    """One spawned worker process and the pipe to it."""

    def __init__(self, settings: Settings) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(settings, theirs), daemon=True)
        self._process.start()
        theirs.close()
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
        """Waits for the worker's first word. Raises WorkerLostError, also if the server ends meanwhile."""
        while self.state is None:
            if ending.is_set():
                raise WorkerLostError("the server stops")
            self.state = self._receive()

    def run(self, order: _Order, ending: threading.Event) -> Answer:
        """Computes an order. Raises what Engine.run raises, and Stopped."""
        self._send(order.task)
        told = False
        while True:
            message = self._receive()
            match message:
                case Step():
                    order.report(message)
                case WorkerState():
                    self.state = message
                case Answer():
                    return message
                case CiphershiftError() | Stopped():
                    raise message
            if order.stop.is_set() and not told:
                self._send(order.task.job_id)
                told = True
            if ending.is_set():
                self.end()
                raise WorkerLostError("the server stops")
            if time.time() > order.task.deadline + GRACE_SECONDS:
                self.end()
                raise DeadlineError("the answer was not there in time, and the worker did not stop: it was ended")

    def _send(self, message: Task | str) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise WorkerLostError("the worker process died under this job") from None

    def _receive(self) -> Any:
        """The next message; None if there is none for a moment. Raises WorkerLostError."""
        try:
            return self._pipe.recv() if self._pipe.poll(LOOK_SECONDS) else None
        except (EOFError, OSError):
            raise WorkerLostError("the worker process died under this job") from None


def serve(settings: Settings, pipe: Connection) -> None:
    """Is a worker process: takes tasks from the pipe until its server is gone. A text there stops the job of this id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is for the server
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so is a stop of the process group: the server drains
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    logs.configure(settings.log_level)
    worker = Worker(settings, settings.engine_url.threads)
    pipe.send(worker.state)
    while True:
        task = pipe.recv()
        if isinstance(task, Task):
            answer = _answer(worker, task, pipe)
            pipe.send(worker.state)
            pipe.send(answer)


def _answer(worker: Worker, task: Task, pipe: Connection) -> Answer | CiphershiftError | Stopped:
    try:
        for item in worker.run(task):
            if isinstance(item, Answer):
                return item
            pipe.send(item)
            if pipe.poll() and pipe.recv() == task.job_id:
                return Stopped()
        raise AssertionError("a worker ends with an answer or an error")
    except CiphershiftError as error:
        return error
    except Exception as error:  # a fault of ours: the worker is the border that keeps it from the other jobs
        _log.exception("job %s failed", task.job_id)
        return CiphershiftError(f"the worker failed ({type(error).__name__}); the server's log says why")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child of the server"
    parent.join()
    os._exit(1)
