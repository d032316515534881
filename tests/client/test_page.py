"""The process of `ciphershift page`, without a browser: who may use it, what it passes on, and what it does with what it is given."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client._transport import Address
from ciphershift.client.page.app import MAX_INPUT_BYTES, create_app
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.protocol.tensors import HEADER_LENGTH

TOKEN = "token"
PATHS = (
    ("GET", "/v2/models"),
    ("PUT", f"/v2/keys/{'0' * 64}"),
    ("POST", "/v2/models/tiny/jobs"),
    ("POST", "/plaintext"),
)
Between = Callable[..., AbstractContextManager[Any]]


@asynccontextmanager
async def page(url: str, *, models: Path = Path("/nowhere"), **address: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has opened the page of the server at `url`."""
    app = create_app(Address(url, **address), TOKEN, models=models, name="the server")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://127.0.0.1:8999",
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as http,
    ):
        yield http


@pytest.mark.parametrize(
    ("headers", "status", "why"),
    [
        ({"Host": "evil.example:8999"}, 403, "only served to this machine"),
        ({"Host": "127.0.0.1.evil.example"}, 403, "only served to this machine"),
        ({"Origin": "http://evil.example"}, 403, "another web page"),
        ({"Origin": "http://127.0.0.1:8998"}, 403, "another web page"),
        ({"Origin": "null"}, 403, "another web page"),
        ({"Authorization": "Bearer other"}, 401, "token"),
        ({"Authorization": ""}, 401, "token"),
    ],
)
def test_only_the_page_itself_gets_answers(
    server: ServerProcess, headers: dict[str, str], status: int, why: str
) -> None:
    async def ask() -> None:
        async with page(server.url) as http:
            for method, path in PATHS:
                answer = await http.request(method, path, headers=headers)
                assert answer.status_code == status
                assert why in answer.json()["detail"]
            assert (await http.get("/v2/models", headers={"Origin": "http://127.0.0.1:8999"})).status_code == 200

    asyncio.run(ask())


def test_the_files_tell_the_browser_what_the_page_may_do(server: ServerProcess) -> None:
    async def ask() -> None:
        async with page(server.url) as http:
            for path in ("/", "/page.js", "/style.css", "/icon.svg", "/page.json"):
                headers = (await http.get(path, headers={"Authorization": ""})).headers
                assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'" in headers["Content-Security-Policy"]
                assert "connect-src 'self'" in headers["Content-Security-Policy"]
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
                assert "Access-Control-Allow-Origin" not in headers

    asyncio.run(ask())


def test_files_beside_the_page_are_not_served(server: ServerProcess) -> None:
    async def ask() -> None:
        async with page(server.url) as http:
            for path in ("/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/v2/../../app.py"):
                assert (await http.get(path)).status_code == 404

    asyncio.run(ask())


def test_requests_reach_the_server_with_its_key_and_without_the_pages(between: Between) -> None:
    """The browser knows the page's token, the server the user's API key, and neither the other's."""

    async def ask(url: str) -> tuple[httpx.Response, httpx.Response]:
        async with page(url, api_key="csk_mine") as http:
            given = {
                "Origin": "http://127.0.0.1:8999",
                "Cookie": "a=b",
                "Last-Event-ID": "7",
                "Accept": "text/event-stream",
            }
            return (
                await http.get("/v2/models/tiny/profile?x=1", headers=given),
                await http.put(f"/v2/keys/{'0' * 64}", content=b"no key at all"),
            )

    with between(lambda request, middle: False) as middle:
        profile, key = asyncio.run(ask(middle.url))
        assert profile.json()["model"] == "tiny"
        assert middle.seen == [("GET", "/v2/models/tiny/profile?x=1"), ("PUT", f"/v2/keys/{'0' * 64}")]
        sent = {name.lower(): value for name, value in middle.headers[0].items()}
    assert sent["authorization"] == "Bearer csk_mine"
    assert sent["last-event-id"] == "7"
    assert sent["accept"] == "text/event-stream"
    assert not {"origin", "cookie", "referer"} & sent.keys()
    assert TOKEN not in str(middle.headers)
    assert (key.status_code, key.json()["code"]) == (400, "bad_magic")


def test_what_the_client_needs_of_an_answer_comes_back(between: Between) -> None:
    def answer(request: BaseHTTPRequestHandler, middle: Any) -> bool:
        request.send_response_only(429)
        for name, value in {HEADER_LENGTH: "2", "Retry-After": "3", "Set-Cookie": "a=b", "Content-Length": "4"}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(b"{}ab")
        return True

    async def ask(url: str) -> httpx.Response:
        async with page(url) as http:
            return await http.get("/v2/jobs/1/result")

    with between(answer) as middle:
        found = asyncio.run(ask(middle.url))
    assert (found.status_code, found.content) == (429, b"{}ab")
    assert (found.headers[HEADER_LENGTH], found.headers["Retry-After"]) == ("2", "3")
    assert "Set-Cookie" not in found.headers


def test_a_server_that_is_gone_is_said_so() -> None:
    async def ask() -> httpx.Response:
        async with page("http://127.0.0.1:9") as http:
            return await http.get("/v2/models")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (502, "unreachable")
    assert answer.headers["Content-Type"] == "application/problem+json"


def clear(digest: str, model: str = "tiny") -> str:
    return f"/plaintext?model={model}&digest={digest}"


def test_the_plaintext_network_is_evaluated_here(
    server: ServerProcess, zoo: Path, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    async def ask() -> None:
        async with page(server.url, models=zoo) as http:
            answer = await http.post(clear(tiny_program.digest), content=tiny_images[0].tobytes())
            assert answer.json()["logits"] == simulate.plain(tiny_program, tiny_images[:1])[0].tolist()
            short = await http.post(clear(tiny_program.digest), content=b"abc")
            assert short.json()["code"] == "bad_shape"

    asyncio.run(ask())


def test_the_plaintext_answer_needs_the_very_same_network(
    server: ServerProcess, tiny_images: NDArray[np.uint8], tiny_program: Program, tmp_path: Path
) -> None:
    replace(tiny_program, version="2").save(tmp_path / "models" / "tiny")
    tiny_program.save(tmp_path / "tiny")  # beside the folder

    async def ask() -> None:
        for folder, model in (("models", "tiny"), ("models", "../tiny"), ("models", ".."), ("none", "tiny")):
            async with page(server.url, models=tmp_path / folder) as http:
                answer = await http.post(clear(tiny_program.digest, model), content=tiny_images[0].tobytes())
                assert answer.status_code == 404
                assert re.search(rf"holds no copy of {re.escape(model)} ", answer.json()["detail"])

    asyncio.run(ask())


def test_an_endless_input_is_refused_while_it_arrives(server: ServerProcess) -> None:
    async def ask() -> None:
        taken = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal taken
            while taken < 10 * MAX_INPUT_BYTES:
                taken += 1 << 16
                yield bytes(1 << 16)

        async with page(server.url) as http:
            answer = await http.post("/plaintext?model=tiny", content=endless())
        assert answer.json()["code"] == "too_large"
        assert taken <= MAX_INPUT_BYTES + (2 << 16)

    asyncio.run(ask())
