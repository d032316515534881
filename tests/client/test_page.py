"""The page's local interface, without a browser: who may use it, and what it does with what it is given."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client.page.app import MAX_IMAGE_BYTES, Page, create_app
from ciphershift.client.page.session import PageSession
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program

TOKEN = "token"


@asynccontextmanager
async def page(url: str, keystore: Keystore, models: Path = Path("/nowhere")) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has opened the page of the server at `url`."""
    session = PageSession(url, keystore=keystore, allow_toy_parameters=True)
    app = create_app(Page(session, models=models, preferred=None, is_embedded=False), session, TOKEN)
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8999", headers={"X-Token": TOKEN}
        ) as http:
            yield http
    finally:
        await session.close()


def handed(image: NDArray[np.uint8], model: str = "tiny") -> str:
    return json.dumps({"model": model, "pixels": base64.b64encode(image.tobytes()).decode()})


async def run(http: httpx.AsyncClient, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """What happens to an image."""
    answer = await http.post("/api/runs", content=handed(image))
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Host": "evil.example:8999"}, "only served to this machine"),
        ({"Host": "127.0.0.1.evil.example"}, "only served to this machine"),
        ({"Origin": "http://evil.example"}, "another web page"),
        ({"Origin": "http://127.0.0.1:8998"}, "another web page"),
        ({"Origin": "null"}, "another web page"),
        ({"X-Token": "other"}, "token"),
        ({"X-Token": ""}, "token"),
    ],
)
def test_only_the_page_itself_gets_answers(
    server: ServerProcess, keystore: Keystore, headers: dict[str, str], why: str
) -> None:
    async def ask() -> None:
        async with page(server.url, keystore) as http:
            for method, path in (("GET", "about"), ("POST", "runs"), ("POST", "images"), ("POST", "plaintext")):
                answer = await http.request(method, f"/api/{path}", headers=headers)
                assert answer.status_code == 403
                assert why in answer.json()["message"]
            assert (await http.get("/api/about", headers={"Origin": "http://127.0.0.1:8999"})).status_code == 200

    asyncio.run(ask())


def test_every_answer_tells_the_browser_what_the_page_may_do(server: ServerProcess, keystore: Keystore) -> None:
    async def ask() -> None:
        async with page(server.url, keystore) as http:
            paths = ("/", "/static/page.js", "/samples/mnist-0-is-7.png", "/api/about", "/api/none", "/none")
            answers = [await http.get(path) for path in paths]
            answers.append(await http.get("/api/about", headers={"X-Token": ""}))
            for headers in (answer.headers for answer in answers):
                assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
                assert "unsafe" not in headers["Content-Security-Policy"]
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
                assert "Access-Control-Allow-Origin" not in headers

    asyncio.run(ask())


def test_files_beside_the_page_are_not_served(server: ServerProcess, keystore: Keystore) -> None:
    async def ask() -> None:
        async with page(server.url, keystore) as http:
            for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/samples/..%2fkeystore.py", "/samples/"):
                assert (await http.get(path)).status_code == 404

    asyncio.run(ask())


def test_a_image_is_encrypted_sent_followed_and_decrypted(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], zoo: Path, tiny_program: Program
) -> None:
    async def ask() -> None:
        async with page(server.url, keystore, models=zoo) as http:
            (model,) = (await http.get("/api/about")).json()["models"]
            events = await run(http, tiny_images[0])
            names = [event["event"] for event in events]
            sent, answer = events[1], events[-1]
            plain = (await http.post("/api/plaintext", content=handed(tiny_images[0]))).json()["logits"]
        assert names[:2] == ["encrypting", "sent"]
        assert names[-1] == "answer"
        assert set(names[2:-1]) == {"progress"}
        assert events[-2]["done"] == events[-2]["total"] == tiny_program.lookups
        ciphertext = base64.b64decode(sent["ciphertext"])
        assert sent["digest"] == hashlib.sha256(ciphertext).hexdigest()
        assert np.corrcoef(answer["logits"], plain)[0, 1] > 0.9
        assert plain == simulate.plain(tiny_program, tiny_images[:1])[0].tolist()
        assert [layer["name"] for layer in model["layers"]] == [layer.name for layer in tiny_program.layers]
        assert sum(layer["lookups"] for layer in model["layers"]) == tiny_program.lookups
        assert model["keys"] == str(keystore.folder / next(keystore.folder.glob("*/client.keys")).parent.name)

    asyncio.run(ask())


def test_the_plaintext_answer_needs_the_very_same_network(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], tiny_program: Program, tmp_path: Path
) -> None:
    replace(tiny_program, version="2").save(tmp_path / "tiny")

    async def ask() -> None:
        for folder in (tmp_path, tmp_path / "none"):
            async with page(server.url, keystore, models=folder) as http:
                answer = await http.post("/api/plaintext", content=handed(tiny_images[0]))
                assert answer.status_code == 404
                assert "holds no copy of tiny" in answer.json()["message"]

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        (json.dumps({"model": "tiny", "pixels": "A"}), "malformed"),
        (json.dumps({"model": "tiny", "pixels": "AAAA"}), "bad_shape"),
        (json.dumps({"model": "none", "pixels": "AAAA"}), "unknown_model"),
        (json.dumps({"model": "tiny", "pixels": "A" * (2 << 20)}), "too_large"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_a_reason(
    server: ServerProcess, keystore: Keystore, content: str, code: str
) -> None:
    async def ask() -> None:
        async with page(server.url, keystore) as http:
            for path in ("runs", "plaintext"):
                answer = await http.post(f"/api/{path}", content=content)
                assert answer.status_code >= 400
                assert answer.json()["code"] == code

    asyncio.run(ask())


def test_an_endless_image_is_refused_while_it_arrives(server: ServerProcess, keystore: Keystore) -> None:
    async def ask() -> None:
        taken = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal taken
            while taken < 10 * MAX_IMAGE_BYTES:
                taken += 1 << 20
                yield bytes(1 << 20)

        async with page(server.url, keystore) as http:
            answer = await http.post("/api/images?model=tiny", content=endless())
        assert answer.json()["code"] == "too_large"
        assert taken <= MAX_IMAGE_BYTES + (2 << 20)

    asyncio.run(ask())


def test_a_server_that_goes_away_ends_the_run_with_its_reason(
    keystore: Keystore, tiny_images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ciphershift.client.page.session.RETRY_TIMEOUT", 0.0)

    async def ask() -> None:
        async with page("http://127.0.0.1:9", keystore) as http:
            answer = await http.post("/api/runs", content=handed(tiny_images[0]))
            assert answer.json()["code"] == "unreachable"

    asyncio.run(ask())


def test_a_job_that_fails_ends_the_run_with_its_reason(
    between: Callable[..., AbstractContextManager[Any]], keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    def full(request: BaseHTTPRequestHandler, middle: Any) -> bool:
        if not request.path.endswith("/jobs"):
            return False
        content = b'{"code": "busy", "detail": "64 jobs wait already: try again later"}'
        request.rfile.read(int(request.headers["Content-Length"]))
        request.send_response_only(429)
        request.send_header("Content-Type", "application/problem+json")
        request.send_header("Retry-After", "100")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
        return True

    async def ask(url: str) -> None:
        async with page(url, keystore) as http:
            events = await run(http, tiny_images[0])
        assert events[-1] == {"event": "error", "code": "busy", "message": "64 jobs wait already: try again later"}

    with between(full) as middle:
        asyncio.run(ask(middle.url))


def test_whoever_stops_listening_cancels_the_job(
    between: Callable[..., AbstractContextManager[Any]],
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
) -> None:
    held = Event()

    def hold(request: BaseHTTPRequestHandler, middle: Any) -> bool:
        if request.path.endswith("/events"):
            held.wait(30)
        return False

    async def ask(url: str) -> None:
        session = PageSession(url, keystore=keystore, allow_toy_parameters=True)
        events = session.classify("tiny", tiny_images[0])
        async for event in events:
            if event["event"] == "sent":
                break
        await events.aclose()
        await session.close()

    with between(hold) as middle:
        asyncio.run(ask(middle.url))
        held.set()
        with Client(server.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client:
            newest = client.jobs(1)[0].id
        assert ("DELETE", f"/v2/jobs/{newest}") in middle.seen
