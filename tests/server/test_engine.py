"""The engine under stress: full queue, passed deadline, dead worker; the server lives on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.client._requests import IDEMPOTENCY_KEY, Request, submission
from ciphershift.client.keystore import KeyPair
from ciphershift.he_layers.crypto import ckks, params

TOY = params.get("TOY_N128")


@contextmanager
def serving(zoo: Path, keystore: Keystore, **settings: Any) -> Iterator[tuple[ServerProcess, Client, Request]]:
    """A server, a client whose keys are there, and an inference request."""
    with (
        running_server(models=zoo, allow_toy_parameters=True, **settings) as server,
        Client(server.url, keystore=keystore, allow_toy_parameters=True) as client,
    ):
        client.prepare()
        yield server, client, request(client, keystore.open(TOY))


def request(client: Client, pair: KeyPair) -> Request:
    values = np.full(64, 0.01)
    image = ckks.encrypt(pair.client_keys, pair.key_id, values).to_bytes()
    _, job = submission(client.profile(), pair.key_id, [image])
    headers = {name: value for name, value in job.headers.items() if name != IDEMPOTENCY_KEY}
    return replace(job, path=job.path.replace("/jobs", "/infer"), headers=headers)


def send(server: ServerProcess, call: Request) -> httpx.Response:
    return httpx.request(
        call.method, server.url + call.path, content=call.content, headers=dict(call.headers), timeout=60
    )


def workers(server: ServerProcess) -> list[int]:
    return [pid for pid in server.family()[1:] if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_full_queue_is_busy(zoo: Path, keystore: Keystore) -> None:
    with serving(zoo, keystore, queue_depth=0) as (server, _, call), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(server, call), range(8)))
        assert send(server, call).status_code == 200
    busy = [answer for answer in answers if answer.status_code == 429]
    assert busy
    assert any(answer.status_code == 200 for answer in answers)
    assert all(answer.json()["code"] == "busy" and answer.headers["Retry-After"] for answer in busy)


def test_a_passed_deadline_is_said_so(zoo: Path, keystore: Keystore) -> None:
    with serving(zoo, keystore, deadline_seconds=0.001) as (server, _, call):
        answer = send(server, call)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200


def kill_workers(server: ServerProcess) -> None:
    for pid in workers(server):
        os.kill(pid, signal.SIGKILL)


def test_a_dead_worker_is_replaced(zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]) -> None:
    with serving(zoo, keystore) as (server, client, call):
        assert send(server, call).status_code == 200
        before = workers(server)
        kill_workers(server)
        answer = send(server, call)
        assert answer.status_code == 200
        assert set(workers(server)).isdisjoint(before)
        assert client.predict(tiny_images[:1]).shape == (1, 3)


def test_a_worker_that_dies_at_work_is_replaced_unseen_by_the_client(
    zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    many = np.concatenate([tiny_images] * 10)
    with serving(zoo, keystore) as (server, client, _), ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.predict, many)
        time.sleep(0.4)
        kill_workers(server)
        assert running.result(60).shape == (len(many), 3)


def test_a_job_that_kills_every_worker_fails_with_the_reason(
    zoo: Path, keystore: Keystore, make_body: Callable[..., Any], tiny_images: NDArray[np.uint8]
) -> None:
    with (
        serving(zoo, keystore, max_batch=500) as (server, client, _),
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        body = make_body(500)
        location = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers).headers["Location"]
        deadline = time.monotonic() + 60
        while (job := http.get(location).json())["state"] != "failed":
            assert time.monotonic() < deadline, job
            if job["state"] == "in_progress":
                kill_workers(server)
            time.sleep(0.1)
        assert job["error"]["code"] == "worker_lost"
        assert http.get(f"{location}/result").status_code == 503
        assert client.predict(tiny_images[:1]).shape == (1, 3)


def test_liveness_answers_within_a_tenth_of_a_second_while_all_cores_compute(
    zoo: Path, keystore: Keystore, make_body: Callable[..., Any]
) -> None:
    cpus = len(os.sched_getaffinity(0))
    with (
        serving(zoo, keystore, max_batch=500, engine=f"local://?workers={cpus}&threads={cpus}") as (server, _, _),
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        locations = []
        for _ in range(cpus):
            body = make_body(500)
            answer = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers)
            locations.append(answer.headers["Location"])
        while any(http.get(location).json()["state"] != "in_progress" for location in locations):
            time.sleep(0.05)
        seconds = []
        for _ in range(200):
            started = time.perf_counter()
            assert http.get("/v2/health/live").status_code == 200
            seconds.append(time.perf_counter() - started)
        assert [http.delete(location).json()["state"] for location in locations] == ["in_progress"] * cpus
    assert np.quantile(seconds, 0.95) < 0.1


def test_workers_end_with_a_killed_server(zoo: Path, keystore: Keystore) -> None:
    with serving(zoo, keystore) as (server, _, _):
        orphans = workers(server)
        os.kill(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(alive, orphans)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert orphans
    assert not any(map(alive, orphans))


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
