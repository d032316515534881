"""What a prediction took: seconds by stage, and bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Timings:
    """Seconds of one prediction or job by stage, summed over its images."""

    keys: float = 0.0
    encrypt: float = 0.0  # includes the public part of a model that has one
    transfer: float = 0.0  # includes the wait in the server's queue
    server: float = 0.0
    decrypt: float = 0.0

    def stages(self) -> dict[str, float]:
        """Seconds by the name of the stage, in order."""
        return asdict(self)

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.stages().values())

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to a stage."""
        started = time.perf_counter()
        yield
        setattr(self, stage, getattr(self, stage) + time.perf_counter() - started)


@dataclass(slots=True)
class Traffic:
    """What went over the wire for one job.

    Attributes:
        sent: bytes of the request's body.
        received: bytes of the answer's body.
        ciphertexts: the container of each image, as it was sent.
    """

    sent: int = 0
    received: int = 0
    ciphertexts: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(slots=True)
class Cost:
    """Timings and traffic of one prediction or job."""

    timings: Timings = field(default_factory=Timings)
    traffic: Traffic = field(default_factory=Traffic)
