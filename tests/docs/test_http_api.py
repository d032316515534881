"""The page of the HTTP API has each route of the server's own schema, with a curl that test_documents.py runs, and no other route."""

import re
from collections.abc import Iterator

import httpx

from ciphershift.benchmarks.harness.server_process import ServerProcess
from tests.support.documents import ROOT, blocks

PAGE = ROOT / "docs" / "http-api.md"
ROUTE = re.compile(r"^### `([A-Z]+) (/\S*)`$", re.MULTILINE)
METHODS = {"--upload-file": "PUT", "--head": "HEAD", "--data-binary": "POST"}


def sections() -> dict[tuple[str, str], str]:
    """The text below each route's heading."""
    _, *parts = ROUTE.split(PAGE.read_text(encoding="utf-8"))
    routes = list(zip(parts[::3], parts[1::3], strict=True))
    assert len(routes) == len(set(routes)), "a route is there twice"
    return dict(zip(routes, parts[2::3], strict=True))


def calls(text: str) -> Iterator[tuple[str, str]]:
    """Method and path of each curl."""
    for command in re.findall(r"\bcurl (?:.*\\\n)*.*", text):
        method = re.search(r"--request (\w+)", command)
        implied = next((name for option, name in METHODS.items() if f"{option} " in command), "GET")
        path = re.search(r"http://127\.0\.0\.1:8000(/[^\s\"?]*)", command)
        assert path, command
        yield method[1] if method else implied, path[1]


def fits(path: str, template: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path) is not None


def test_every_route_has_a_section_with_a_curl_and_no_section_lacks_a_route(server: ServerProcess) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    found = sections()
    assert found.keys() == routes
    for (method, template), text in found.items():
        assert any(call == method and fits(path, template) for call, path in calls(text)), f"{method} {template}"


def test_every_curl_of_the_page_is_run() -> None:
    shown = [block for block in blocks(PAGE) if "curl" in block.text]
    assert all(block.language == "sh" and block.is_run for block in shown)
    assert sum(len(list(calls(block.text))) for block in shown) > len(sections())
