"""Pages from elsewhere: no origin is allowed unless it was named, and then what the client in a browser needs, and no more."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.protocol.container import HEADER_BYTES

PAGE = "https://page.example"
ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,inference-header-content-length",
}


@pytest.fixture(scope="module")
def naming(zoo: Path) -> Iterator[ServerProcess]:
    """A server that lets pages of one origin in."""
    with running_server(models=zoo, allow_toy_parameters=True, allowed_origins=PAGE) as server:
        yield server


def test_nothing_is_allowed_unless_it_is_named(server: ServerProcess) -> None:
    answer = httpx.options(f"{server.url}/v2/models/tiny/jobs", headers={"Origin": PAGE} | ASKED)
    assert answer.status_code == 403  # an open server refuses the pages of other origins
    plain = httpx.get(f"{server.url}/v2/models", headers={"Origin": PAGE})
    assert not [name for name in (*answer.headers, *plain.headers) if name.startswith("access-control")]


def test_a_named_origin_may_send_and_read_what_the_client_does(naming: ServerProcess) -> None:
    asked = httpx.options(f"{naming.url}/v2/models/tiny/jobs", headers={"Origin": PAGE} | ASKED)
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == PAGE
    assert "access-control-allow-credentials" not in asked.headers
    read = httpx.get(f"{naming.url}/v2/models/tiny/profile", headers={"Origin": PAGE})
    assert read.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Inference-Header-Content-Length" in read.headers["Access-Control-Expose-Headers"]


def test_an_error_can_be_read_too(naming: ServerProcess) -> None:
    answer = httpx.put(f"{naming.url}/v2/keys/{'0' * 64}", content=bytes(HEADER_BYTES), headers={"Origin": PAGE})
    assert answer.json()["code"] == "bad_magic"
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://page.example", f"{PAGE}:8443"])
def test_another_origin_is_not_allowed(naming: ServerProcess, origin: str) -> None:
    asked = httpx.options(f"{naming.url}/v2/models/tiny/jobs", headers={"Origin": origin} | ASKED)
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
