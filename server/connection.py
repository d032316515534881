"""One HTTP connection: time limits for head, body and answer, a limit of connections, and no reading of ambiguous heads.

uvicorn's own implementation waits for the rest of a request, and for the reader of its answer, for as long as the client likes, and h11
accepts forms that proxies read in another way (RFC 9112, section 11.2). What is refused here never reaches the application.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

METHODS = frozenset({b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"QUERY"})
MAX_HEAD_BYTES = 16 << 10
MIN_BODY_RATE = 4096  # bytes per second, averaged over `body_seconds`; of bodies and of answers
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_FOLDED_LINE = re.compile(rb"\r\n[ \t]")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding[ \t]*:")
_SIZED = re.compile(rb"(?i)\r\ncontent-length[ \t]*:")


class _CheckedParser(h11.Connection):
    """h11, which is not asked to read a head that is refused; also not one behind a body that nobody waited for."""

    def __init__(self, acceptable: Callable[[], bool]) -> None:
        super().__init__(h11.SERVER)
        self._acceptable = acceptable

    def next_event(self) -> Any:
        """Returns the next event, NEED_DATA for ever behind a refusal."""
        return super().next_event() if self.their_state is not h11.IDLE or self._acceptable() else h11.NEED_DATA


class LimitedConnection(H11Protocol):
    """A connection under the limits of `limited`, which makes the subclass that uvicorn gets."""

    max_connections: int
    header_seconds: float
    body_seconds: float

    _timer: asyncio.TimerHandle | None = None
    _received = 0  # bytes since the body timer was started
    _reader_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Takes what uvicorn gives."""
        super().__init__(*arguments, **options)
        self.conn = _CheckedParser(self._acceptable)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses a connection beyond the limit; else waits for a request's head."""
        super().connection_made(transport)
        # Writing counts as paused while anything waits for the client; with zero asyncio's TLS would pause what waits for nobody.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1, low=0)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "busy", f"the server has {self.max_connections} connections, its limit: try again later")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._unwatch()
        self._unwatch_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Starts the timer of a client that does not read what has been written."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stops the timer: the client has read everything."""
        self._unwatch_reader()
        super().resume_writing()

    def shutdown(self) -> None:
        """Ends the connection with its request; at once, if that is still arriving. May be called again."""
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser."""
        self._received += len(data)
        if not self.transport.is_closing():
            super().data_received(data)

    def handle_events(self) -> None:
        """Parses what has arrived."""
        before = self.conn.their_state
        super().handle_events()
        if self.conn.their_state is not before or self._timer is None:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP; without a word if an answer is under way or given, which uvicorn's own fails at."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(400, "malformed", "this is not HTTP/1.1")
        else:
            self._unwatch()
            self.transport.abort()

    def _acceptable(self) -> bool:
        """Whether the head that has arrived so far may be parsed; refuses the request if not."""
        data, _ = self.conn.trailing_data
        head, complete, _ = data.partition(b"\r\n\r\n")
        method = head.split(b" ", 1)[0][:32]
        if (data and not any(known.startswith(method) for known in METHODS)) or (complete and method not in METHODS):
            self._refuse(501, "not_implemented", "no resource here has this method")
        elif len(head) > MAX_HEAD_BYTES:
            self._refuse(431, "too_large", f"the head of a request has at most {MAX_HEAD_BYTES} bytes")
        elif _BARE_LINE_FEED.search(head) or _FOLDED_LINE.search(head + complete[:2]):
            self._refuse(400, "malformed", "lines of the head end with CR LF and are not folded")
        elif complete and _CHUNKED.search(head) and _SIZED.search(head):
            self._refuse(400, "malformed", "send Content-Length or Transfer-Encoding, not both")
        else:
            return True
        return False

    def _watch(self) -> None:
        """Starts the timer that fits what the connection waits for."""
        self._unwatch()
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            if self.timeout_keep_alive_task is None:  # between two requests it is uvicorn's that runs
                self._timer = self.loop.call_later(self.header_seconds, self._head_is_late)
        elif self.conn.their_state is h11.SEND_BODY:
            self._received = 0
            self._timer = self.loop.call_later(self.body_seconds, self._check_body)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._refuse(408, "too_slow", f"the head of a request must arrive within {self.header_seconds:g} s")

    def _check_body(self) -> None:
        if not self.flow.read_paused and self._received < MIN_BODY_RATE * self.body_seconds:
            self._unwatch()
            self.transport.abort()  # the application sees that its client has disconnected
        else:
            self._watch()

    def _watch_reader(self) -> None:
        self._unwatch_reader()
        unread = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(self.body_seconds, self._check_reader, unread)

    def _unwatch_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _check_reader(self, unread: int) -> None:
        if unread - self.transport.get_write_buffer_size() < MIN_BODY_RATE * self.body_seconds:
            self.transport.abort()
        else:
            self._watch_reader()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        self._unwatch()
        title = HTTPStatus(status).phrase
        problem = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
            "error": detail,
        }
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        if not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            self.transport.close()


def limited(*, max_connections: int, header_seconds: float, body_seconds: float) -> type[LimitedConnection]:
    """Returns the class of connections for uvicorn's `http` option.

    Args:
        max_connections: open connections of the process.
        header_seconds: in which the head of a request must arrive.
        body_seconds: in which MIN_BODY_RATE is averaged; a body that arrives more slowly is broken off, and so is an answer that is read
            more slowly.
    """
    limits: dict[str, Any] = {
        "max_connections": max_connections,
        "header_seconds": header_seconds,
        "body_seconds": body_seconds,
    }
    return type("Connection", (LimitedConnection,), limits)
