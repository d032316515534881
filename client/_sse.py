"""Follows a job by server-sent events, read as they arrive, and by polling where events do not come through.

The format is that of the HTML Living Standard, section 9.2.6, with lines that end in LF or CRLF. Libraries for it buffer a line without
limit; the server is not trusted here, so an event and the bytes between two events have limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ciphershift.client._requests import RETRIED, Deadline, Request, Retrying, Sleep, Steps
from ciphershift.client._wire import error_of, read
from ciphershift.client.jobs import JobStatus, job_path
from ciphershift.errors import DeadlineError, MalformedError, TooLargeError, UnreachableError

MAX_EVENT_BYTES = 64 << 10
MAX_IDLE_BYTES = 1 << 20
SILENCE_SECONDS = 60.0  # servers send a heartbeat more often than that
POLL_SECONDS = 1.0
_EVENTS = ("progress", "completed", "failed", "canceled")

Observer = Callable[[JobStatus], None]


def follow(retrying: Retrying, job_id: str, deadline: Deadline, observe: Observer) -> Steps[JobStatus]:
    """Follows a job until it is finished.

    A stream that breaks is resumed after its last event, and between two streams the job is polled: a proxy that holds events back
    delays them and loses none.

    Args:
        retrying: sends the requests.
        job_id: the job.
        deadline: when to stop waiting.
        observe: called with each status on the way.

    Raises:
        DeadlineError: it is not finished at the deadline; the job goes on.
        UnreachableError: the server is gone for longer than the retry timeout.
        TooLargeError, MalformedError: the event stream is not one of ours.
    """
    last_id = ""
    while True:
        stream = _Stream(job_id, observe, deadline)
        try:
            response = yield Request(
                method="GET",
                path=f"{job_path(job_id)}/events",
                headers={"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {}),
                silence_seconds=min(SILENCE_SECONDS, max(deadline.left, 0.1)),
                receive=stream.take,
            )
        except UnreachableError:
            pass  # if the server is gone, the next request says so
        else:
            if not response.is_success and response.status_code not in RETRIED:
                raise error_of(response)
        if stream.finished:
            return stream.finished
        last_id = stream.last_id or last_id
        status = read(JobStatus, (yield from retrying(Request(method="GET", path=job_path(job_id)))).content)
        observe(status)
        if status.is_finished:
            return status
        if not deadline.left:
            raise DeadlineError(f"job {job_id} is not finished after {deadline.seconds:g} s: wait longer, or cancel it")
        yield Sleep(POLL_SECONDS)


class _Stream:
    """Consumes one event stream of a job."""

    def __init__(self, job_id: str, observe: Observer, deadline: Deadline) -> None:
        self.finished: JobStatus | None = None
        self.last_id = ""
        self._job_id = job_id
        self._observe = observe
        self._deadline = deadline
        self._reader = EventReader()

    def take(self, chunk: bytes) -> bool:
        """Returns whether to go on reading."""
        for event in self._reader.feed(chunk):
            if event.name not in _EVENTS:
                continue
            status = read(JobStatus, event.data.encode())
            if status.id != self._job_id:
                raise MalformedError(f"the event stream of job {self._job_id} contained an event of job {status.id}")
            self.last_id = event.id
            self._observe(status)
            if status.is_finished:
                self.finished = status
                return False
        return self._deadline.left > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event: its name, its data, and the id from which the stream can be resumed."""

    name: str
    data: str
    id: str


class EventReader:
    """Parses the chunks of one stream into events."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._id = ""
        self._event_bytes = 0
        self._idle_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yields the events that end in this chunk.

        Raises:
            TooLargeError: an event, or the bytes between two events, exceed their limit.
            MalformedError: the stream is not text.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._idle_bytes += len(line) + 1
            if line in (b"", b"\r"):
                if event := self._end():
                    yield event
            else:
                self._take(line.removesuffix(b"\r"))
        self._check(len(self._rest))

    def _check(self, more: int) -> None:
        if self._event_bytes + more > MAX_EVENT_BYTES or self._idle_bytes > MAX_IDLE_BYTES:
            raise TooLargeError(
                f"the event stream has no complete event within {MAX_EVENT_BYTES} bytes: is this a ciphershift server?"
            )

    def _take(self, line: bytes) -> None:
        self._check(len(line))
        self._event_bytes += len(line)
        try:
            name, _, value = line.decode().partition(":")
        except UnicodeDecodeError:
            raise MalformedError("the event stream is not UTF-8 text: is this a ciphershift server?") from None
        value = value.removeprefix(" ")
        if name == "data" and name in self._fields:
            value = f"{self._fields[name]}\n{value}"
        self._fields[name] = value

    def _end(self) -> Event | None:
        fields, self._fields, self._event_bytes = self._fields, {}, 0
        given = fields.get("id", "")
        if given.isascii() and given.isprintable() and len(given) <= 128:  # it goes back to the server in a header
            self._id = given or self._id
        if "data" not in fields:
            return None
        self._idle_bytes = 0
        return Event(name=fields.get("event", "message"), data=fields["data"], id=self._id)
