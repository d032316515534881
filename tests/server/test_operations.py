"""What operators rely on: readiness that means it, metrics, logs without payloads, TLS, and workers in processes of their own."""

import json
import os
import select
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
import trustme

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.errors import ConfigurationError
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database
from tests.server.conftest import PATIENCE_SECONDS, Serve
from tests.support import gated_server
from tests.support.gated_server import STARTING, Gate
from tests.support.metrics import samples

INFER = "/v2/models/tiny/infer"


def infer(url: str, bundle: tuple[str, bytes], body: Any, **headers: str) -> httpx.Response:
    httpx.put(f"{url}/v2/keys/{bundle[0]}", content=bundle[1])
    return httpx.post(url + INFER, content=body.content, headers=body.headers | headers, timeout=60)


def test_metrics_count_what_happened(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path: Path
) -> None:
    with running_server(models=zoo, allow_toy_parameters=True) as server:
        for _ in range(2):
            assert infer(server.url, bundle, make_body(2)).status_code == 200
        httpx.get(f"{server.url}/no/such/path")
        found = samples(server.url)
    assert found["ciphershift_requests_total", ("POST", "/v2/models/{name}/infer", "200")] == 2
    assert found["ciphershift_requests_total", ("GET", "none", "404")] == 1
    assert found["ciphershift_request_seconds_count", ("/v2/models/{name}/infer",)] == 2
    assert found["ciphershift_jobs_total", ("tiny", "completed")] == 2
    assert found["ciphershift_bootstraps_total", ("tiny",)] == 2 * 2 * 144
    assert found["ciphershift_compute_seconds_count", ("relu", "tiny")] == 2  # of two images each, evaluated together
    assert found["ciphershift_queue_seconds_count", ()] == 2
    assert found["ciphershift_queue_depth", ()] == 0
    assert found["ciphershift_key_cache_misses_total", ()] == 1
    assert found["ciphershift_key_cache_hits_total", ()] == 1  # of two requests
    assert found["ciphershift_key_cache_bytes", ()] > len(bundle[1])
    assert found["ciphershift_worker_rss_bytes", ("worker-0",)] > 10 << 20
    assert found["ciphershift_workers_ready", ()] == 1


def test_metrics_can_be_turned_off(zoo: Path) -> None:
    with running_server(models=zoo, allow_toy_parameters=True, metrics=False) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 404


def test_logs_are_json_with_ids_and_without_payloads(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path: Path
) -> None:
    body = make_body()
    with running_server(models=zoo, allow_toy_parameters=True, log_level="debug") as server:
        given = infer(server.url, bundle, body, **{"X-Request-Id": "trace-7", "Authorization": "Bearer csk_geheim"})
        made = httpx.get(f"{server.url}/v2/models", headers={"X-Request-Id": "no good\tid"})
        long = httpx.get(f"{server.url}/{'no/such/path/' * 300}", headers={"X-Request-Id": "x" * 5000})
        text = server.log.read_text()
    assert given.headers["X-Request-Id"] == "trace-7"
    assert long.status_code == 404
    assert max(map(len, text.splitlines())) < 2000
    assert len(made.headers["X-Request-Id"]) == 32
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "trace-7" and line["event"] == "request"]
    assert (line["status"], line["route"], line["tenant"]) == (200, "/v2/models/{name}/infer", "local")
    assert line["received"] == len(body.content)
    assert line["sent"] == len(given.content)
    job = given.headers["Content-Location"].split("/")[3]
    assert {"job_started", "job_ended"} <= {line["event"] for line in lines if line.get("job") == job}
    assert "geheim" not in text
    binary = body.content[int(body.headers["Inference-Header-Content-Length"]) :]
    assert not any(binary[start : start + 12].hex() in text for start in range(0, len(binary), 12))


def ready(url: str) -> int:
    return httpx.get(f"{url}/v2/health/ready", timeout=10).status_code


def until(url: str, status: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while ready(url) != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_without_a_store_or_a_worker_is_not_ready(gated: Serve, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    with gated(storage=storage) as server:
        url = server.process.url
        assert ready(url) == 200
        shutil.rmtree(storage / "spool")
        (storage / "spool").write_text("no folder")
        until(url, 503)
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        (storage / "spool").unlink()
        until(url, 200)
        server.gate.hold(STARTING)
        for pid in server.process.family()[1:]:
            os.kill(pid, signal.SIGKILL)
        until(url, 503)
        server.gate.open()
        until(url, 200)


def test_workers_in_processes_of_their_own_share_the_queue(
    zoo: Path, make_body: Callable[..., Any], gated: Serve, postgres: Callable[[], str], tmp_path: Path
) -> None:
    shared = {"database": postgres(), "storage": tmp_path, "lease_seconds": 3}
    database = Database(Settings(database=shared["database"]).database_url)
    database.migrate()
    database.close()
    gate = Gate(tmp_path / "gate")
    worker = {
        **shared,
        "program": ("-P", gated_server.__file__, "worker"),
        "engine": "local://?threads=1",
        "gate": gate.path,
        "models": zoo,
        "allow_toy_parameters": True,
    }
    with gated(**shared, engine="queue://", wait_until_ready=False) as api:
        assert api.http.get("/v2/health/live").status_code == 200
        assert ready(api.process.url) == 503
        gate.hold(1)
        with running_server(**worker) as first, running_server(**worker) as second:
            assert httpx.get(f"{first.url}/v2/models").status_code == 404
            until(api.process.url, 200)
            locations = [api.submit(make_body()) for _ in range(3)]
            for location in locations[:2]:  # both workers are held at once: each has a job of its own
                api.held(location)
            gate.open()
            assert [api.finished(location)["state"] for location in locations] == ["completed"] * 3
            ended = ("ciphershift_jobs_total", ("tiny", "completed"))
            done = [samples(process.url)[ended] for process in (first, second)]
            assert sum(done) == 3
        until(api.process.url, 503)


def test_a_server_whose_store_is_a_bucket(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], bucket: str, tmp_path: Path
) -> None:
    """Keys, images and answers are objects there; the folder beside it has copies of keys alone."""
    settings = {"storage": bucket, "database": f"sqlite:///{tmp_path}/own.db", "cache": tmp_path / "cache"}
    with running_server(models=zoo, allow_toy_parameters=True, engine="local://?threads=1", **settings) as server:
        answer = infer(server.url, bundle, make_body(2))
        assert answer.status_code == 200, answer.text
        result = answer.headers["Content-Location"]
        assert httpx.get(server.url + result).content == answer.content
        objects = fsspec.filesystem("s3")
        names = sorted(name.partition("/state/")[2] for name in objects.find(bucket))
        job = result.split("/")[3]
        assert [name.split("/")[0] for name in names] == ["jobs", "keys", "probe"]
        assert names[0].startswith(f"jobs/{job}.result")
        (copy,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert copy.read_bytes() == objects.cat_file(f"{bucket}/{names[1]}") == bundle[1]
        assert httpx.delete(f"{server.url}/v2/keys/{bundle[0]}").status_code == 204
        assert httpx.delete(f"{server.url}/v2/jobs/{job}").status_code == 200
        objects.invalidate_cache()
        assert [name.partition("/state/")[2] for name in objects.find(bucket)] == ["probe"]


def test_an_unmigrated_database_is_refused_with_the_command_to_run(
    zoo: Path, postgres: Callable[[], str], tmp_path: Path
) -> None:
    with (
        pytest.raises(ConfigurationError, match="ciphershift migrate"),
        running_server(models=zoo, database=postgres()),
    ):
        pass


def test_an_address_of_ipv6_is_printed_as_it_is_written_in_a_url(zoo: Path, tmp_path: Path) -> None:
    """And what the server writes is its own user's alone."""
    with running_server(models=zoo, allow_toy_parameters=True, host="::1", storage=tmp_path / "storage") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/v2/health/live").json() == {"live": True}
        written = [tmp_path / "storage", *(tmp_path / "storage").rglob("*")]
        assert len(written) > 2
        assert not [path for path in written if path.stat().st_mode & 0o077]


def whole(connection: socket.socket) -> bytes:
    """All that the server sends until it closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_served_process_keeps_its_limits_of_connections(zoo: Path, bundle: tuple[str, bytes]) -> None:
    """That an idle connection is closed after one second is shown by a head that is late after three and began later."""
    settings = {"models": zoo, "allow_toy_parameters": True, "engine": "queue://", "wait_until_ready": False}
    limits = {"max_connections": 5, "header_seconds": 3, "idle_seconds": 1, "body_seconds": 1}
    with running_server(**settings, **limits) as server, ExitStack() as clients:
        port = int(server.url.rpartition(":")[2])

        def connected(data: bytes = b"") -> socket.socket:
            connection = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            connection.sendall(data)
            return connection

        bare = b"GET /v2/health/live HTTP/1.1\nHost: 127.0.0.1\n\n"
        assert whole(connected(bare)).startswith(b"HTTP/1.1 400")
        client = HTTPConnection("127.0.0.1", port)
        client.request("GET", "/v2/health/live")
        assert client.getresponse().read() == b'{"live":true}'
        idle = clients.enter_context(client.sock)
        half = connected(bare[:20])
        ended, _, _ = select.select([idle, half], [], [], 60)
        assert idle in ended
        assert idle.recv(1) == b""
        assert whole(half).startswith(b"HTTP/1.1 408")
        slow = connected(
            f"PUT /v2/keys/{bundle[0]} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n12".encode()
        )
        with suppress(ConnectionResetError):
            assert slow.recv(1) == b""

        def sixth() -> bytes:
            *_, last = [connected() for _ in range(6)]
            return whole(last)

        # Again if this process was so slow that the first had ended before the sixth came.
        assert any(sixth().startswith(b"HTTP/1.1 503") for _ in range(10))


def test_tls_from_certificate_files(zoo: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    settings = {"models": zoo, "allow_toy_parameters": True, "tls_certificate": chain, "tls_key": key}
    with running_server(**settings, header_seconds=1, wait_until_ready=False) as server:
        assert server.url.startswith("https://")
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as silent:
            silent.settimeout(30)  # asyncio's own limit for a handshake is 60 s
            assert silent.recv(1) == b""
        url = server.url.replace("127.0.0.1", "localhost")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        assert httpx.get(f"{url}/v2/health/live", verify=context).json() == {"live": True}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/v2/health/live")
