"""Server-sent events, read as they arrive: bounded in memory, whatever a server sends.

The format is that of the HTML Living Standard, section 9.2.6, with lines that end in LF or CRLF. Libraries for it keep a line for as
long as it does not end; here the server is not trusted, so an event and the bytes between two events have limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ciphershift.errors import MalformedError, TooLargeError

MAX_EVENT_BYTES = 64 << 10
MAX_IDLE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event: its name, its data, and the id after which the stream can be taken up again."""

    name: str
    data: str
    id: str


class EventReader:
    """Makes events of a stream's chunks."""

    def __init__(self) -> None:
        """Begins at the start of a stream."""
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._id = ""
        self._event_bytes = 0
        self._idle_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yields the events that end in this chunk.

        Raises:
            TooLargeError: an event, or what stands between two events, is longer than any service of ours sends.
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
                f"the stream holds no end of an event within {MAX_EVENT_BYTES} bytes: is this a ciphershift server?"
            )

    def _take(self, line: bytes) -> None:
        self._check(len(line))
        self._event_bytes += len(line)
        try:
            name, _, value = line.decode().partition(":")
        except UnicodeDecodeError:
            raise MalformedError("the stream of events is not UTF-8 text: is this a ciphershift server?") from None
        value = value.removeprefix(" ")
        if name == "data" and name in self._fields:
            value = f"{self._fields[name]}\n{value}"
        self._fields[name] = value

    def _end(self) -> Event | None:
        fields, self._fields, self._event_bytes = self._fields, {}, 0
        given = fields.get("id", "")
        if given.isascii() and given.isprintable():  # it goes back to the server in a header
            self._id = given or self._id
        if "data" not in fields:
            return None
        self._idle_bytes = 0
        return Event(name=fields.get("event", "message"), data=fields["data"], id=self._id)
