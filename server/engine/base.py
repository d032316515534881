"""The interface of engines: evaluate tasks, report progress layer by layer, stop when canceled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One attempt at a job, as an engine gets it."""

    job_id: str
    model: str
    model_digest: str
    key_id: str
    key_file: Path
    images: tuple[bytes, ...]
    deadline: float  # seconds since the epoch: the clock that processes share
    checkpoint: Path  # where a worker keeps what it has computed, for the one that goes on if it dies


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerProgress:
    """One layer, or a slice of it, of images that are evaluated together.

    Attributes:
        layer: its name.
        seconds: of this layer or slice.
        lookups_done: of the whole job.
        lookups_saved: of them, those that the last checkpoint has; in the first report of a task, those that it began with.
        images_done: of the whole job.
    """

    layer: str
    seconds: float
    lookups_done: int
    lookups_saved: int
    images_done: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """One container of encrypted logits per image, and the time taken."""

    logits: tuple[bytes, ...]
    seconds: float
    key_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """What a worker reports when it is ready and after each task."""

    rss_bytes: int
    key_cache_bytes: int
    key_cache_hits: int
    key_cache_misses: int


class Stopped(Exception):  # noqa: N818 - not an error: the caller asked for it
    """The task was canceled."""


class Engine(Protocol):
    """Workers, in processes of this machine or elsewhere."""

    @property
    def slots(self) -> int:
        """How many tasks are evaluated at once."""

    @property
    def workers(self) -> dict[str, WorkerState]:
        """The workers that are ready, by name."""

    def start(self) -> None:
        """Starts the workers, without waiting for them."""

    async def stop(self) -> None:
        """Ends the workers and the tasks they evaluate."""

    async def run(self, task: Task, report: Callable[[LayerProgress], None]) -> TaskResult:
        """Evaluates a task. Canceling the call stops the task between two layers; the call ends when it has stopped.

        Args:
            task: what to evaluate.
            report: called in the event loop after each layer.

        Raises:
            DeadlineError: the task's deadline passed.
            WorkerLostError: the worker died; the task may be run again.
            CiphershiftError: keys or images are not acceptable.
        """
