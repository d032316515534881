"""For tests of the service: requests as bytes, and servers whose jobs are held where a test wants them."""

import json
import os
import secrets
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import httpx
import numpy as np
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.protocol import tensors
from tests.support import gated_server
from tests.support.gated_server import Gate

os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
TOY = params.get("TOY_N128")
PATIENCE_SECONDS = 300.0  # that no working machine needs, however busy


@dataclass(frozen=True)
class Body:
    """The body of an inference request, and its headers."""

    content: bytes
    headers: dict[str, str]


@pytest.fixture(scope="session")
def make_body(keystore: Keystore) -> Callable[[int], Body]:
    """Makes a request of so many encrypted images for the tiny network."""
    pair = keystore.open(TOY)
    image = ckks.encrypt(pair.client_keys, pair.key_id, np.full(64, 0.01)).to_bytes()

    def make(images: int = 1, **parameters: str) -> Body:
        content, headers = tensors.build_request(
            [image] * images, key_id=pair.key_id, image_shape=(1, 8, 8), request_id=uuid.uuid4().hex
        )
        text, tensor = tensors.split_body(headers[tensors.HEADER_LENGTH], content)
        header = json.loads(text)
        header["parameters"] |= parameters
        return Body(*tensors.join_body(header, tensor))

    return make


@pytest.fixture(scope="session")
def bundle(keystore: Keystore) -> tuple[str, bytes]:
    """A bundle of evaluation keys with its id."""
    pair = keystore.open(TOY)
    return pair.key_id, pair.evaluation_keys.read_bytes()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder in a bucket on moto's S3 server, found as docs/operations.md says."""
    pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "geheim",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    # All of moto's servers in a process share one memory.
    httpx.post(f"http://127.0.0.1:{port}/moto-api/reset").raise_for_status()
    httpx.put(f"http://127.0.0.1:{port}/ciphershift").raise_for_status()
    yield "s3://ciphershift/state"
    store = fsspec.filesystem("s3")
    store.close_session(store.loop, store.s3)
    store.clear_instance_cache()  # the next test has another server
    server.stop()


@dataclass(frozen=True)
class Gated:
    """A server with a gate, that has the keys, and an HTTP client of it."""

    process: ServerProcess
    http: httpx.Client
    gate: Gate

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Sends a request."""
        return self.http.post(f"/v2/models/tiny/{path}", content=body.content, headers=body.headers | headers)

    def submit(self, body: Any) -> str:
        """Submits a job; returns its path."""
        accepted = self.post("jobs", body)
        assert accepted.status_code == 202, accepted.text
        return accepted.headers["Location"]

    def job(self, location: str) -> dict[str, Any]:
        """What the API says of a job."""
        return self.http.get(location).json()

    def until(self, location: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits until the job is as the test wants it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(job := self.job(location)):
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job

    def finished(self, location: str) -> dict[str, Any]:
        """Waits for the end of a job."""
        return self.until(location, lambda job: job["state"] not in ("pending", "in_progress"))

    def held(self, location: str) -> dict[str, Any]:
        """Waits until a worker has done a layer of the job."""
        return self.until(location, lambda job: job["progress"]["bootstraps_done"] > 0)


def kill_workers(server: Gated) -> None:
    for pid in server.process.workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


Serve = Callable[..., Any]


@pytest.fixture(scope="session")
def gated(zoo: Path, bundle: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Starts a gated server: `with gated(**settings) as server`; with `holding` its gate is closed from the start.

    It evaluates one image after the other, unless the settings say otherwise.
    """

    @contextmanager
    def serve(holding: int | None = None, **settings: Any) -> Iterator[Gated]:
        gate = Gate(tmp_path_factory.mktemp("gate") / "layers")
        if holding is not None:
            gate.hold(holding)
        given: dict[str, Any] = {
            "engine": "local://?threads=1",
            "max_batch": 100,
            "images_per_turn": 1,
            "gate": gate.path,
            **settings,
        }
        program = ("-P", gated_server.__file__, "serve")
        with (
            running_server(models=zoo, allow_toy_parameters=True, program=program, **given) as process,
            httpx.Client(base_url=process.url, timeout=PATIENCE_SECONDS) as http,
        ):
            assert http.put(f"/v2/keys/{bundle[0]}", content=bundle[1]).status_code == 201
            try:
                yield Gated(process, http, gate)
            finally:
                gate.open()

    return serve
