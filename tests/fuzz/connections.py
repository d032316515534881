"""What a connection brings, before any of it is a request: read alike in whatever pieces it arrives, and nothing ambiguous is passed on."""

import asyncio
import re
from typing import Any

import atheris
from uvicorn import Config
from uvicorn.server import ServerState

from ciphershift.server.connection import MAX_HEAD_BYTES, METHODS, limited
from tests.fuzz.target import run

ANSWER = re.compile(rb"HTTP/1\.1 (200|400|431|501|503) [^\r\n]+\r\n(?:[^\r\n]+\r\n)*\r\n")
PARTS = (
    b"GET /read HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
    b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
    b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /read HTTP/1.1\nHost: x\n\n",
    b"GET /read HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"\r\n",
    b"Connection: close\r\n",
    b"A: " + b"a" * MAX_HEAD_BYTES,
)
Request = tuple[str, str, bytes]  # method, path, and what was read of the body


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


async def connection(pieces: list[bytes]) -> tuple[list[Request], bytes]:
    """Requests that reach the application, and what is written to the client."""
    seen: list[Request] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        """Answers /early before it has read the body, everything else behind it."""
        body, more = b"", not scope["path"].startswith("/early")
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        names = [name for name, _ in scope["headers"]]
        assert scope["method"].encode() in METHODS, scope
        assert not {b"content-length", b"transfer-encoding"} <= set(names), scope
        seen.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    made = limited(max_connections=5, header_seconds=60, body_seconds=60)
    state, transport = ServerState(), Transport()
    protocol = made(Config(application, http=made, lifespan="off", log_level="critical"), state, {})
    protocol.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            protocol.data_received(piece)
            while state.tasks and await progress(state.tasks):
                pass
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks)
    return seen, transport.written


async def progress(tasks: set[Any]) -> bool:
    """Lets what can go on go on; whether anything has ended."""
    before = len(tasks)
    for _ in range(5):
        await asyncio.sleep(0)
    return len(tasks) < before


def one(data: bytes) -> None:
    """Some of the parts above, changed or not, in one piece and in several."""
    choose = atheris.FuzzedDataProvider(data)
    stream = b""
    for _ in range(choose.ConsumeIntInRange(1, 4)):
        part = PARTS[choose.ConsumeIntInRange(0, len(PARTS) - 1)]
        if choose.ConsumeBool():
            place = choose.ConsumeIntInRange(0, len(part))
            part = (
                part[:place]
                + choose.ConsumeBytes(choose.ConsumeIntInRange(0, 12))
                + part[place + choose.ConsumeIntInRange(0, 3) :]
            )
        stream += part
    cuts = sorted(choose.ConsumeIntInRange(0, len(stream)) for _ in range(choose.ConsumeIntInRange(0, 4)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, cut = (LOOP.run_until_complete(connection(given)) for given in ([stream], pieces))
    assert whole[0] == cut[0], (stream, pieces, whole, cut)
    for _, written in (whole, cut):
        assert not written or ANSWER.match(written), (stream, written)


if __name__ == "__main__":
    LOOP = asyncio.new_event_loop()
    run(
        "connections",
        one,
        [bytes([0, number, 0, 3]) for number in range(len(PARTS))]
        + [bytes(range(n, n + 64)) for n in range(0, 192, 16)],
        ["ciphershift.server.connection", "h11"],
    )
