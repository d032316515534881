"""What every engine does: computes tasks somewhere, says how far they are, and stops when told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One job, as an engine gets it."""

    job_id: str
    model: str
    model_digest: str
    key_id: str
    key_file: Path
    images: tuple[bytes, ...]
    deadline: float  # seconds since the epoch: the clock that processes share


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One layer of one image is done."""

    layer: str
    seconds: float  # that the layer took
    bootstraps_done: int  # of the whole job
    images_done: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One container of encrypted logits per image, and what it took."""

    logits: tuple[bytes, ...]
    seconds: float
    key_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """What a worker says of itself when it is ready and after each task."""

    rss_bytes: int
    key_cache_bytes: int
    key_cache_hits: int
    key_cache_misses: int


class Stopped(Exception):  # noqa: N818 - no error: the task was to end
    """The task was canceled."""


class Engine(Protocol):
    """Workers somewhere."""

    @property
    def slots(self) -> int:
        """How many tasks are computed at once."""

    @property
    def workers(self) -> dict[str, WorkerState]:
        """The workers that are ready, by name."""

    def start(self) -> None:
        """Starts the workers, without waiting for them."""

    async def stop(self) -> None:
        """Ends the workers, and what they compute."""

    async def run(self, task: Task, report: Callable[[Step], None]) -> Answer:
        """Computes a task. To cancel the call stops the task between two layers; the call ends when it has stopped.

        Args:
            task: what to compute.
            report: called in the event loop after each layer.

        Raises:
            DeadlineError: it was not done in time.
            WorkerLostError: the worker died; the task may be run again.
            CiphershiftError: what the worker found wrong with keys or images.
        """
