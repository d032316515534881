"""Follows a job to its end by the server's events, and by asking where events do not come through."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ciphershift.client._requests import Call, Pause, Steps
from ciphershift.client._retrying import RETRIED, Exchange
from ciphershift.client._sse import EventReader
from ciphershift.client._wire import error_of, read
from ciphershift.client.jobs import JobStatus, job_path
from ciphershift.errors import DeadlineError, MalformedError, UnreachableError

SILENCE_SECONDS = 60.0  # a server says that it is still there more often than that
PAUSE_SECONDS = 1.0
_EVENTS = ("progress", "completed", "failed", "canceled")

Observer = Callable[[JobStatus], None]


def follow(exchange: Exchange, job_id: str, timeout: float | None, observe: Observer) -> Steps[JobStatus]:
    """Returns what became of a job; what is seen of it on the way goes to `observe`.

    A stream that breaks is taken up after its last event, and between two streams the job is asked for, so that a proxy that holds
    events back delays them and loses none.

    Raises:
        DeadlineError: it is not finished after `timeout` seconds, and goes on.
        UnreachableError: the server is gone for longer than the exchange's patience.
        TooLargeError, MalformedError: the stream does not come from a service of ours.
    """
    end = math.inf if timeout is None else time.monotonic() + timeout
    last_id = ""
    while True:
        stream = _Stream(job_id, observe, end)
        try:
            response = yield Call(
                method="GET",
                path=f"{job_path(job_id)}/events",
                headers={"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {}),
                silence_seconds=min(SILENCE_SECONDS, max(end - time.monotonic(), 0.1)),
                receive=stream.take,
            )
        except UnreachableError:
            pass  # if the server is gone, the next call says so
        else:
            if not response.is_success and response.status_code not in RETRIED:
                raise error_of(response)
        if stream.finished:
            return stream.finished
        last_id = stream.last_id or last_id
        status = read(JobStatus, (yield from exchange(Call(method="GET", path=job_path(job_id)))).content)
        observe(status)
        if status.is_finished:
            return status
        if time.monotonic() >= end:
            raise DeadlineError(f"job {job_id} is not finished after {timeout:g} s: wait longer, or cancel it")
        yield Pause(PAUSE_SECONDS)


class _Stream:
    """Takes one stream of a job's events."""

    def __init__(self, job_id: str, observe: Observer, end: float) -> None:
        self.finished: JobStatus | None = None
        self.last_id = ""
        self._job_id = job_id
        self._observe = observe
        self._end = end
        self._reader = EventReader()

    def take(self, chunk: bytes) -> bool:
        """Returns whether more is wanted."""
        for event in self._reader.feed(chunk):
            if event.name not in _EVENTS:
                continue
            status = read(JobStatus, event.data.encode())
            if status.id != self._job_id:
                raise MalformedError(f"the events of job {self._job_id} tell of job {status.id}")
            self.last_id = event.id
            self._observe(status)
            if status.is_finished:
                self.finished = status
                return False
        return time.monotonic() < self._end
