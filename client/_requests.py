"""What a session asks for, as values: an HTTP request, or a sleep; and the retries of a request. Nothing here sends or waits.

A session's methods are generators of steps. A transport (client/_transport.py) carries each step out and sends its result back in, or
throws the error that it met.
"""

from __future__ import annotations

import math
import secrets
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from ciphershift.client._wire import ModelProfile, error_of
from ciphershift.errors import UnreachableError
from ciphershift.protocol import tensors

T = TypeVar("T")

IDEMPOTENCY_KEY = "Idempotency-Key"
RETRIED = (429, 502, 503, 504)
_CHUNK_BYTES = 256 << 10
_LONGEST_SLEEP = 8.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as a request's body, read while it is sent."""

    path: Path
    sent: Callable[[int], None] = lambda count: None  # called with the size of each chunk

    def __len__(self) -> int:
        """Bytes to send."""
        return self.path.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """Reads the file from its start."""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                self.sent(len(chunk))


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One HTTP request, and the limits of its answer."""

    method: str
    path: str
    content: bytes | Upload = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_limit: int = 1 << 20  # bytes; a longer answer is an error
    silence_seconds: float = 60.0  # without a byte of answer, before the connection is given up
    receive: Callable[[bytes], bool] | None = None  # takes a successful answer as it arrives; False ends it

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method != "POST" or IDEMPOTENCY_KEY in self.headers


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause before the next request."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Deadline:
    """The timeout that was asked for, and when it ends on the monotonic clock."""

    seconds: float
    end: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Returns the deadline in `seconds` from now; None never comes."""
        chosen = math.inf if seconds is None else seconds
        return cls(chosen, time.monotonic() + chosen)

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(self.end - time.monotonic(), 0.0)


Step = Request | Sleep
Steps = Generator[Step, httpx.Response, T]


def submission(profile: ModelProfile, key_id: str, images: Sequence[bytes]) -> tuple[str, Request]:
    """Returns a new request id, and the request that makes a job of encrypted images; sending it again does not make another job."""
    request_id = uuid.uuid4().hex
    content, headers = tensors.build_request(
        images, key_id=key_id, image_shape=profile.input_shape, request_id=request_id
    )
    path = f"/v2/models/{profile.model}/jobs"
    return request_id, Request(
        method="POST", path=path, content=content, headers=headers | {IDEMPOTENCY_KEY: request_id}
    )


class Retrying:
    """Sends a request again while that may help and the retry timeout lasts, if it may be sent twice."""

    def __init__(self, retry_timeout: float) -> None:
        """Args: retry_timeout: seconds that the sleeps between the attempts of one request may add up to."""
        self._retry_timeout = retry_timeout

    def __call__(self, request: Request) -> Steps[httpx.Response]:
        """Returns the answer to a request.

        Raises:
            UnreachableError: the server does not answer, or stopped answering.
            CiphershiftError: the server's own error.
        """
        waited = 0.0
        attempt = 0
        while True:
            try:
                response = yield request
            except UnreachableError:
                pause = _backoff(attempt)
                if not (request.repeatable and waited + pause <= self._retry_timeout):
                    raise
            else:
                if response.is_success:
                    return response
                pause = max(_retry_after(response), _backoff(attempt))
                again = response.status_code in RETRIED and request.repeatable
                if not again or waited + pause > self._retry_timeout:
                    raise error_of(response)
            yield Sleep(pause)
            waited += pause
            attempt += 1


def _retry_after(response: httpx.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() and len(asked) < 10 else 0.0


def _backoff(attempt: int) -> float:
    """Doubles from half a second; the random part keeps clients that failed together from coming back together."""
    longest = min(0.5 * 2.0**attempt, _LONGEST_SLEEP)
    return longest * (0.75 + 0.25 * secrets.randbelow(1000) / 1000)
