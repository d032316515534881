"""A place between client and server, where requests and answers can be held up, changed or lost."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from tests.support import gated_server
from tests.support.gated_server import Gate

Hook = Callable[[BaseHTTPRequestHandler, "Between"], bool]


class Between:
    """Passes requests on to a server, but for those that a hook answers in its place."""

    def __init__(self, target: str, hook: Hook) -> None:
        self._http = httpx.Client(base_url=target, timeout=60, trust_env=False)
        self.seen: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def do(self) -> None:
                outer.seen.append((self.command, self.path))
                outer.headers.append(dict(self.headers))
                if not hook(self, outer):
                    self.pass_on()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815

            def pass_on(self) -> None:
                give(self, outer.ask(self))

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def ask(self, handler: BaseHTTPRequestHandler) -> httpx.Response:
        """Sends a request on and returns the answer."""
        content = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
        return self._http.request(handler.command, handler.path, content=content, headers=headers)

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._http.close()


def give(handler: BaseHTTPRequestHandler, response: httpx.Response) -> None:
    """Hands an answer to the client."""
    handler.send_response_only(response.status_code)
    for name, value in response.headers.items():
        if name.lower() not in ("transfer-encoding", "connection", "content-length"):
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(response.content)))
    handler.end_headers()
    handler.wfile.write(response.content)


def failing(code: str, times: int) -> Hook:
    """A hook that tells of so many jobs that they failed with this code."""
    failed: list[str] = []

    def hook(handler: BaseHTTPRequestHandler, middle: Between) -> bool:
        if not handler.path.endswith("/events"):
            return False
        job = handler.path.split("/")[3]
        if job not in failed and len(failed) == times:
            return False
        failed.append(job)
        handler.path = f"/v2/jobs/{job}"
        status = middle.ask(handler).json() | {"state": "failed", "error": {"code": code, "detail": "send it again"}}
        content = f"event: failed\nid: 1\ndata: {json.dumps(status)}\n\n"
        give(handler, httpx.Response(200, text=content, headers={"Content-Type": "text/event-stream"}))
        return True

    return hook


@contextmanager
def passing(target: str, hook: Hook) -> Iterator[Between]:
    """A place before a server, by its URL, whose answers a hook may replace."""
    middle = Between(target, hook)
    thread = Thread(target=middle.run)
    thread.start()
    try:
        yield middle
    finally:
        middle.close()
        thread.join()


@pytest.fixture
def between(server: ServerProcess) -> Callable[[Hook], AbstractContextManager[Between]]:
    """`with between(hook) as middle`: a server whose answers a hook may replace."""
    return lambda hook: passing(server.url, hook)


@pytest.fixture
def gated(zoo: Path, keystore: Keystore, tmp_path: Path) -> Iterator[tuple[Client, Gate]]:
    """The client of a server that holds every job after its first layer, and the gate that lets them go on."""
    gate = Gate(tmp_path / "gate")
    gate.hold(1)
    settings = {"models": zoo, "allow_toy_parameters": True, "engine": "local://?threads=1", "gate": gate.path}
    with (
        running_server(program=("-P", gated_server.__file__, "serve"), **settings) as process,
        Client(process.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client,
    ):
        try:
            yield client, gate
        finally:
            gate.open()
