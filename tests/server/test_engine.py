"""The engine under stress: full queue, passed deadline, dead worker; the server lives on."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ciphershift.benchmarks.harness.server_process import is_running
from ciphershift.errors import WorkerLostError
from ciphershift.server.engine.local import _Process
from ciphershift.server.settings import Settings
from tests.server.conftest import PATIENCE_SECONDS, Gated, Serve, kill_workers


@pytest.fixture(scope="module")
def shared(gated: Serve) -> Any:
    """A server whose queue holds nothing beside the one job that is computed."""
    with gated(queue_depth=0) as server:
        yield server


@pytest.fixture
def server(shared: Gated) -> Gated:
    shared.gate.open()
    return shared


def test_a_full_queue_is_busy(server: Gated, make_body: Callable[..., Any]) -> None:
    server.gate.hold(1)
    running = server.submit(make_body())
    server.held(running)
    busy = server.post("infer", make_body())
    assert (busy.status_code, busy.json()["code"]) == (429, "busy")
    assert busy.headers["Retry-After"]
    server.gate.open()
    assert server.finished(running)["state"] == "completed"
    assert server.post("infer", make_body()).status_code == 200


def test_a_dead_worker_is_replaced(server: Gated, make_body: Callable[..., Any]) -> None:
    assert server.post("infer", make_body()).status_code == 200
    before = server.process.workers()
    kill_workers(server)
    assert server.post("infer", make_body()).status_code == 200
    assert server.process.workers().isdisjoint(before)


def test_a_worker_that_dies_at_work_is_replaced_unseen_by_the_client(
    server: Gated, make_body: Callable[..., Any]
) -> None:
    server.gate.hold(4)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post, "infer", make_body(2))
        while not (jobs := server.http.get("/v2/jobs", params={"limit": 1}).json()["jobs"]) or waiting.done():
            time.sleep(0.02)
        server.until(f"/v2/jobs/{jobs[0]['id']}", lambda job: job["progress"]["images_done"] == 1)
        kill_workers(server)
        server.gate.open()
        assert waiting.result().status_code == 200


def test_a_job_that_kills_every_worker_fails_with_the_reason(server: Gated, make_body: Callable[..., Any]) -> None:
    server.gate.hold(1)
    location = server.submit(make_body())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (job := server.job(location))["state"] != "failed":
        assert time.monotonic() < deadline, job
        if job["state"] == "in_progress":
            kill_workers(server)
        time.sleep(0.05)
    assert job["error"]["code"] == "worker_lost"
    assert server.http.get(f"{location}/result").status_code == 503
    server.gate.open()
    assert server.post("infer", make_body()).status_code == 200


@pytest.mark.parametrize("use", [lambda process: process._send("a job"), lambda process: process._receive()])
def test_a_process_whose_pipe_is_broken_takes_no_other_task(zoo: Path, use: Callable[[_Process], object]) -> None:
    """A killed process loses its files first and counts as dead later: every attempt of a job would be lost in between."""
    process = _Process(Settings(models=zoo, allow_toy_parameters=True))
    process.wait_until_ready(threading.Event())
    assert process.is_alive()
    process._pipe.close()
    with pytest.raises(WorkerLostError):
        use(process)
    assert not process.is_alive()


def test_health_answers_while_every_worker_computes(server: Gated, make_body: Callable[..., Any]) -> None:
    server.gate.hold(1)
    location = server.submit(make_body())
    server.held(location)
    for _ in range(50):  # a held job computes for ever: an event loop that waited for it would never answer
        assert server.http.get("/v2/health/live").status_code == 200
        assert server.http.get("/v2/health/ready").status_code == 200
    assert server.job(location)["state"] == "in_progress"
    server.http.delete(location)
    server.finished(location)


def test_a_passed_deadline_is_said_so(gated: Serve, make_body: Callable[..., Any]) -> None:
    with gated(deadline_seconds=0.001) as server:
        answer = server.post("infer", make_body())
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
        assert server.http.get("/v2/health/ready").status_code == 200
        orphans = server.process.workers()
        os.kill(server.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(map(is_running, orphans)):  # workers end with a killed server
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert orphans
