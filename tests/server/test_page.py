"""The page that a server hands out if it is told to: the files, and what a browser is told of them."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def serving(zoo: Path) -> Iterator[ServerProcess]:
    with running_server(models=zoo, allow_toy_parameters=True, page=True, engine="local://?threads=1") as server:
        yield server


def test_there_is_no_page_unless_it_is_wanted(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/page/").status_code == 404


def test_the_page_may_load_its_own_files_and_reach_its_own_server_alone(serving: ServerProcess) -> None:
    page = httpx.get(f"{serving.url}/page", follow_redirects=True)
    assert page.url == f"{serving.url}/page/"
    for name in ("", "page.js", "style.css", "icon.svg", "page.json"):
        answer = httpx.get(f"{serving.url}/page/{name}")
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "connect-src 'self'"} <= set(policy)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("../app.py", "%2e%2e/app.py", "none"):
        assert httpx.get(f"{serving.url}/page/{name}").status_code == 404


def test_the_page_names_the_digests_of_what_it_loads(serving: ServerProcess) -> None:
    text = httpx.get(f"{serving.url}/page/").text
    loaded = dict(re.findall(r'(?:src|href)="([^"#]+\.(?:js|css))" integrity="sha384-([^"]+)"', text))
    assert loaded.keys() == {"page.js", "style.css"}
    assert not re.findall(r"<script(?! type=\"module\" src=)", text)
    for name, digest in loaded.items():
        content = httpx.get(f"{serving.url}/page/{name}").content
        assert base64.b64encode(hashlib.sha384(content).digest()).decode() == digest


def test_the_pages_files_are_one_route_to_metrics(serving: ServerProcess) -> None:
    for name in ("page.js", "none-1", "none-2"):
        httpx.get(f"{serving.url}/page/{name}")
    routes = set(re.findall(r'route="([^"]+)"', httpx.get(f"{serving.url}/metrics").text))
    assert not [route for route in routes if "none-" in route]
