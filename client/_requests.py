"""What a client does next, as values: a call or a pause. Nothing here sends or waits; a driver (client/_transport.py) does.

A session's methods are generators of steps. The driver carries each step out and sends its result back in, or throws the error
that it met, so that a session reads like plain code and the sync and the async client run the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

T = TypeVar("T")

IDEMPOTENCY_KEY = "Idempotency-Key"
_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Upload:
    """The contents of a file as a request's body, read as they are sent."""

    path: Path
    sent: Callable[[int], None] = lambda count: None  # is told the size of each chunk

    def __len__(self) -> int:
        """How many bytes there are to send."""
        return self.path.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """Reads the file from its beginning."""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                self.sent(len(chunk))


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One HTTP request, and how much answer it may bring."""

    method: str
    path: str
    content: bytes | Upload = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_limit: int = 1 << 20  # bytes; a longer answer is an error
    silence_seconds: float = 60.0  # without a byte of answer, before the connection is given up
    receive: Callable[[bytes], bool] | None = None  # takes a good answer as it arrives; False ends it

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method != "POST" or IDEMPOTENCY_KEY in self.headers


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait before the next call."""

    seconds: float


Step = Call | Pause
Steps = Generator[Step, httpx.Response, T]
