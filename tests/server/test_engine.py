"""The engine under stress: full queue, passed deadline, dead worker; the server lives on."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.server_process import ServerProcess, running_server
from client import Client, Keystore
from client.keystore import KeyPair
from client.protocol import Call, infer_call
from he_layers.crypto import ckks, params

TOY = params.get("TOY_N128")


@contextmanager
def serving(zoo: Path, keystore: Keystore, **settings: Any) -> Iterator[tuple[ServerProcess, Client, Call]]:
    """A server, a client whose keys are there, and an inference request."""
    with (
        running_server(models=zoo, allow_toy_parameters=True, **settings) as server,
        Client(server.url, keystore=keystore, allow_toy_parameters=True) as client,
    ):
        client.prepare()
        yield server, client, request(client, keystore.open(TOY))


def request(client: Client, pair: KeyPair) -> Call:
    values = np.full(64, 0.01)
    return infer_call(client.profile(), pair.key_id, ckks.encrypt(pair.client_keys, pair.key_id, values).to_bytes())[1]


def send(server: ServerProcess, call: Call) -> httpx.Response:
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


def test_a_dead_worker_is_replaced(zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]) -> None:
    with serving(zoo, keystore) as (server, client, call):
        assert send(server, call).status_code == 200
        for pid in workers(server):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        answer = send(server, call)
        assert (answer.status_code, answer.json()["code"]) == (503, "worker_lost")
        assert client.predict(tiny_images[:1]).shape == (1, 3)


def test_a_worker_that_dies_at_work_is_replaced_unseen_by_the_client(
    zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    many = np.concatenate([tiny_images] * 5)
    with serving(zoo, keystore) as (server, client, _), ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.predict, many)
        time.sleep(0.2)
        for pid in workers(server):
            os.kill(pid, signal.SIGKILL)
        assert running.result(60).shape == (len(many), 3)


def test_liveness_answers_while_an_inference_runs(
    zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    many = np.concatenate([tiny_images] * 5)
    with serving(zoo, keystore) as (server, client, _), ThreadPoolExecutor(1) as pool, httpx.Client() as http:
        running = pool.submit(client.predict, many)
        slowest = 0.0
        while not running.done():
            started = time.perf_counter()
            assert http.get(f"{server.url}/v2/health/live").status_code == 200
            slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.5  # 0.1 s is the aim; both cores may be computing


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
