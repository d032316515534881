"""What a connection may do before a request reaches the application: methods, heads and bodies under limits."""

import asyncio
import errno
import inspect
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from ciphershift.server import process
from ciphershift.server.connection import MAX_HEAD_BYTES, LimitedConnection, limited
from ciphershift.server.settings import Settings
from tests.support.documents import ROOT

KERNEL_BYTES = 4096  # of a connection, for the kernel to buffer; it takes somewhat more
ANSWERS = {"/small": 48 << 10, "/large": 32 << 20}
"""Bytes of the answer to a path, more than the kernel takes; the small one asyncio would hold without a pause."""


@dataclass
class Application:
    """Reads every body but those sent to /early, and remembers what arrived; answers with two bytes, or as ANSWERS says."""

    requests: list[str] = field(default_factory=list)
    disconnects: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.requests.append(scope["method"])
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            if not message.get("more_body"):
                break
        body = bytes(ANSWERS[scope["path"]]) if scope["path"] in ANSWERS else b"ok"
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Serving:
    """A server in a thread."""

    app: Application
    port: int
    server: uvicorn.Server

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def answer(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Status and problem of the answer to these bytes; the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return read(connection)


def read(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body) if body.startswith(b"{") else {}


class Unseen(set[Any]):
    """A set that shows what it has from the second look on."""

    looked = False

    def __iter__(self) -> Iterator[Any]:
        seen = super().__iter__() if self.looked else iter(())
        self.looked = True
        return seen


def test_a_connection_that_the_stopping_server_has_not_seen_is_ended_too() -> None:
    """It is accepted in the moment in which the listener is closed, and its client would ask for ever."""
    http = limited(max_connections=50, header_seconds=300, body_seconds=300)
    config = uvicorn.Config(Application(), port=0, http=http, log_level="critical", lifespan="off")
    config.timeout_graceful_shutdown = config.timeout_keep_alive = 300
    service: Any = None  # which only a signal asks
    server: Any = process._Server(config, service)
    server.server_state.connections = Unseen()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        address = server.servers[0].sockets[0].getsockname()
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(GOOD + b"\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\nok"):
                answer += connection.recv(65536)
            server.should_exit = True
            assert connection.recv(1) == b""
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@pytest.fixture
def serving(request: pytest.FixtureRequest) -> Iterator[Serving]:
    limits = {"max_connections": 50, "header_seconds": 60.0, "body_seconds": 60.0} | getattr(request, "param", {})
    app = Application()
    config = uvicorn.Config(app, http=limited(**limits), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)  # inherited by connections
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield Serving(app, listener.getsockname()[1], server)
        server.should_exit = server.force_exit = True
        thread.join()


GOOD = b"GET / HTTP/1.1\r\nHost: x\r\n"


def test_a_request_in_pieces_and_two_in_one_are_served(serving: Serving) -> None:
    with serving.connect() as connection:
        for piece in (GOOD[:10], GOOD[10:], b"\r\n"):
            connection.sendall(piece)
            time.sleep(0.01)
        connection.sendall(GOOD + b"\r\n" + GOOD + b"Connection: close\r\n\r\n")
        assert read(connection)[0] == 200
    assert serving.app.requests == ["GET"] * 3


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "not_implemented"),
        (b"X" * 60_000, 501, "not_implemented"),
        (b"GETX / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "not_implemented"),
        (GOOD + b"A: " + b"a" * MAX_HEAD_BYTES, 431, "too_large"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "malformed"),
        (GOOD + b"A: b\r\n c\r\n\r\n", 400, "malformed"),
        (GOOD + b"no colon\r\n\r\n", 400, "malformed"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
            400,
            "malformed",
        ),
    ],
)
def test_an_ambiguous_or_endless_head_never_reaches_the_application(
    serving: Serving, head: bytes, status: int, code: str
) -> None:
    found, problem = serving.answer(head)
    assert (found, problem["code"], problem["status"]) == (status, code, status)
    assert serving.app.requests == []
    assert serving.answer(GOOD + b"Connection: close\r\n\r\n")[0] == 200


@pytest.mark.parametrize(
    ("head", "rest", "status"),
    [
        (b"Content-Length: 5\r\n\r\n", b"12345GET / HTTP/1.1\nHost: x\n\n", b" 400 "),
        (b"Content-Length: 5\r\n\r\n", b"12345BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b" 501 "),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"no chunk\r\n", b""),
    ],
)
def test_what_comes_behind_an_early_answer_is_checked_too(
    serving: Serving, caplog: pytest.LogCaptureFixture, head: bytes, rest: bytes, status: bytes
) -> None:
    """Found by fuzzing: an answer before the whole body made the next head pass unseen, and damaged bodies an error of ours."""
    with serving.connect() as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\n" + head)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            answer += connection.recv(65536)
        connection.sendall(rest)
        received = b""
        with suppress(ConnectionResetError):
            received = connection.recv(65536)
        assert status in received if status else not received
    assert serving.answer(GOOD + b"Connection: close\r\n\r\n")[0] == 200
    assert serving.app.requests == ["POST", "GET"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("serving", [{"header_seconds": 0.2}], indirect=True)
def test_a_head_that_does_not_end_is_broken_off_and_others_are_served(serving: Serving) -> None:
    slow = [serving.connect() for _ in range(30)]
    for number, connection in enumerate(slow):
        connection.sendall(GOOD[: number % len(GOOD)])
    assert serving.answer(GOOD + b"Connection: close\r\n\r\n")[0] == 200
    assert {read(connection)[0] for connection in slow} == {408}
    for connection in slow:
        connection.close()


@pytest.mark.parametrize("serving", [{"body_seconds": 0.2}], indirect=True)
def test_a_body_that_does_not_arrive_is_broken_off(serving: Serving) -> None:
    with serving.connect() as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n12")
        with pytest.raises((ConnectionError, IndexError)):  # it is closed without an answer
            read(connection)
    for _ in range(1000):  # the application hears of it after the peer
        if serving.app.disconnects:
            break
        time.sleep(0.01)
    assert serving.app.disconnects == 1


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("serving", [{"body_seconds": 0.3}], indirect=True)
def test_a_client_that_does_not_read_its_answer_holds_neither_connection_nor_memory(
    serving: Serving, path: str
) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
        connection.connect(("127.0.0.1", serving.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deadline = time.monotonic() + 30
        while not serving.app.requests or serving.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the option is of Linux")
def test_the_system_gives_up_a_connection_whose_client_does_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process.set_options(listener, Settings(body_seconds=0.3))
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            accepted.settimeout(30)
            with pytest.raises(TimeoutError) as given_up:
                while True:
                    accepted.sendall(bytes(1 << 20))
    assert given_up.value.errno == errno.ETIMEDOUT  # by the system, not by the patience of this test


@pytest.mark.parametrize("serving", [{"body_seconds": 0.3}], indirect=True)
def test_a_client_that_reads_slowly_gets_all_of_its_answer(serving: Serving) -> None:
    with serving.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = 0
        while piece := connection.recv(1 << 19):
            received += len(piece)
            time.sleep(0.02)
        assert received > ANSWERS["/large"]


@pytest.mark.parametrize("serving", [{"max_connections": 5}], indirect=True)
def test_connections_beyond_the_limit_are_refused_until_others_close(serving: Serving) -> None:
    open_ones = [serving.connect() for _ in range(5)]
    for connection in open_ones:  # each is known to the server
        connection.sendall(GOOD + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    with serving.connect() as refused:
        assert read(refused)[1]["code"] == "busy"
    for connection in open_ones:
        connection.close()
    deadline = time.monotonic() + 30
    while serving.answer(GOOD + b"Connection: close\r\n\r\n")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_refusal_of_a_connection_is_in_troubleshooting() -> None:
    refusals = re.findall(r'_refuse\((\d+), "(\w+)"', inspect.getsource(LimitedConnection))
    rows = [
        line for line in (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    assert len(refusals) > 4
    for status, code in set(refusals):
        assert any(f"`{code}`" in row and status in row for row in rows), (status, code)
