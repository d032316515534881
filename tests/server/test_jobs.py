"""Jobs over HTTP: accepted, followed, fetched, canceled; kept through kill -9, drain and lost workers."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database, Job
from tests.server.conftest import PATIENCE_SECONDS, Gated, Serve
from tests.support import gated_server

LAYERS = 3  # of one image


@pytest.fixture(scope="module")
def shared(gated: Serve) -> Iterator[Gated]:
    with gated() as server:
        yield server


@pytest.fixture
def server(shared: Gated) -> Gated:
    shared.gate.open()
    return shared


def header_of(answer: httpx.Response) -> dict[str, Any]:
    return json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])


@pytest.mark.parametrize(
    ("path", "headers"), [("jobs", {}), ("infer", {"Prefer": "respond-async"})], ids=["jobs", "respond-async"]
)
def test_a_job_is_accepted_computed_and_fetched(
    server: Gated, make_body: Callable[..., Any], path: str, headers: dict[str, str]
) -> None:
    accepted = server.post(path, make_body(2), **headers)
    assert accepted.status_code == 202
    assert accepted.headers.get("Preference-Applied") == headers.get("Prefer")
    location = accepted.headers["Location"]
    assert location == f"/v2/jobs/{accepted.json()['id']}"
    job = server.finished(location)
    assert (job["state"], job["images"], job["error"]) == ("completed", 2, None)
    assert job["progress"]["bootstraps_done"] == job["progress"]["bootstraps_total"] == 2 * 144
    assert job["created"] <= job["started"] <= job["finished"] < job["expires"]
    result = server.http.get(f"{location}/result")
    assert result.status_code == 200
    assert header_of(result)["outputs"][0]["shape"] == [2]
    assert server.http.get("/v2/jobs", params={"limit": 1}).json()["jobs"][0]["id"] == job["id"]


def test_plain_infer_is_the_same_job_waited_for(server: Gated, make_body: Callable[..., Any]) -> None:
    answer = server.post("infer", make_body())
    assert answer.status_code == 200
    again = server.http.get(answer.headers["Content-Location"])
    assert again.content == answer.content
    assert header_of(again) == header_of(answer)


def test_the_same_idempotency_key_is_computed_once(server: Gated, make_body: Callable[..., Any]) -> None:
    body = make_body()
    first, second = (server.post("infer", body, **{"Idempotency-Key": "once"}) for _ in range(2))
    assert first.content == second.content  # a second computation would have other masks
    other = server.post("infer", make_body(), **{"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def events(server: Gated, location: str, **headers: str) -> Iterator[dict[str, str]]:
    with server.http.stream("GET", f"{location}/events", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
            elif "event" in event:
                yield event
                event = {}


def test_events_tell_progress_up_to_the_end(server: Gated, make_body: Callable[..., Any]) -> None:
    images = 5
    server.gate.hold(1)
    location = server.submit(make_body(images))
    told = []
    for event in events(server, location):
        told.append(event)
        done = json.loads(event["data"])["progress"]["images_done"]
        lookups = json.loads(event["data"])["progress"]["bootstraps_done"]
        if lookups:  # the job is held until each image has been told of
            server.gate.hold(LAYERS * (done + 1) + 1)
    jobs = [json.loads(event["data"]) for event in told]
    assert [event["event"] for event in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-1]["event"] == jobs[-1]["state"] == "completed"
    ids = [int(event["id"]) for event in told]
    assert ids == sorted(set(ids))
    done = [job["progress"]["images_done"] for job in jobs]
    assert set(range(images)) <= set(done)
    assert done == sorted(done)
    assert jobs[-1]["progress"]["bootstraps_done"] == images * 144
    halfway = [job["progress"] for job in jobs if job["state"] == "in_progress" and job["progress"]["layer"]]
    assert all(progress["eta_seconds"] >= 0 for progress in halfway)
    resumed = list(events(server, location, **{"Last-Event-ID": str(ids[-2])}))
    assert [event["id"] for event in resumed] == [str(ids[-1])]


def test_a_running_job_is_canceled_between_two_layers(server: Gated, make_body: Callable[..., Any]) -> None:
    server.gate.hold(1)
    location = server.submit(make_body(2))
    early = server.http.get(f"{location}/result")
    assert (early.status_code, early.json()["code"]) == (409, "not_finished")
    server.held(location)
    assert server.http.delete(location).status_code == 200
    job = server.finished(location)
    assert job["state"] == "canceled"
    assert job["progress"]["bootstraps_done"] < job["progress"]["bootstraps_total"]
    late = server.http.get(f"{location}/result")
    assert (late.status_code, late.json()["code"]) == (409, "canceled")
    assert list(events(server, location))[-1]["event"] == "canceled"
    server.gate.open()
    assert server.post("infer", make_body()).status_code == 200


def test_a_waiting_job_knows_its_place_and_can_be_canceled(server: Gated, make_body: Callable[..., Any]) -> None:
    server.gate.hold(1)
    first, second, third = (server.submit(make_body()) for _ in range(3))
    server.held(first)
    assert [server.job(location)["queue_position"] for location in (first, second, third)] == [None, 0, 1]
    assert server.http.delete(second).json()["state"] == "canceled"
    assert server.job(third)["queue_position"] == 0
    server.http.delete(third)
    server.http.delete(first)


def test_a_client_that_goes_gives_its_worker_free(server: Gated, make_body: Callable[..., Any]) -> None:
    server.gate.hold(1)
    body = make_body()
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(
            "/v2/models/tiny/infer",
            content=body.content,
            headers=body.headers,
            timeout=httpx.Timeout(PATIENCE_SECONDS, read=0.5),
        )
    abandoned = server.http.get("/v2/jobs", params={"limit": 1}).json()["jobs"][0]
    assert server.finished(f"/v2/jobs/{abandoned['id']}")["state"] == "canceled"


def test_a_forgotten_result_is_gone(server: Gated, make_body: Callable[..., Any]) -> None:
    answer = server.post("infer", make_body())
    result = answer.headers["Content-Location"]
    assert server.http.delete(result.removesuffix("/result")).json()["state"] == "completed"
    gone = server.http.get(result)
    assert (gone.status_code, gone.json()["code"]) == (410, "expired")


def test_the_jobs_own_error_is_the_answer(server: Gated, make_body: Callable[..., Any]) -> None:
    body = make_body()
    spoilt = body.content[:-1] + bytes([body.content[-1] ^ 1])
    accepted = server.http.post("/v2/models/tiny/jobs", content=spoilt, headers=body.headers)
    assert accepted.status_code == 202
    location = accepted.headers["Location"]
    job = server.finished(location)
    assert (job["state"], job["error"]["code"]) == ("failed", "digest_mismatch")
    result = server.http.get(f"{location}/result")
    assert (result.status_code, result.json()["code"]) == (400, "digest_mismatch")
    assert list(events(server, location))[-1]["event"] == "failed"


@pytest.mark.parametrize("path", ["", "/result", "/events"])
def test_an_unknown_job_is_said_so(server: Gated, path: str) -> None:
    answer = server.http.get(f"/v2/jobs/{'00' * 16}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def until_ended(process: ServerProcess) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_stopped_servers_lose_no_job(gated: Serve, make_body: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"storage": tmp_path, "lease_seconds": 1, "drain_seconds": 0}
    with gated(**settings) as first:
        done = first.post("infer", make_body())
        first.gate.hold(1)
        locations = [first.submit(make_body(2)) for _ in range(3)]
        lost = first.held(locations[0])["started"]
        os.kill(first.process.pid, signal.SIGKILL)
    with gated(holding=1, **settings, **UNHURRIED) as second:  # it is stopped at work, with no time to finish
        assert second.http.get(done.headers["Content-Location"]).content == done.content
        # The lease of the one that was killed is over; the second may have begun another job before.
        second.until(locations[0], lambda job: job["state"] == "pending" or job["started"] != lost)
        second.until("/v2/jobs", lambda found: any(job["state"] == "in_progress" for job in found["jobs"]))
        os.kill(second.process.pid, signal.SIGTERM)
        until_ended(second.process)
    database = Database(Settings(storage=str(tmp_path)).database_url)
    with database.reading() as session:
        unfinished = {job.state for job in session.query(Job).filter(Job.finished.is_(None))}
    database.close()
    assert unfinished <= {"pending"}, "what was computed has been released"
    with gated(**settings) as third:
        assert [third.finished(location)["state"] for location in locations] == ["completed"] * 3
        for location in locations:
            assert header_of(third.http.get(f"{location}/result"))["outputs"][0]["shape"] == [2]


def test_a_stopping_server_finishes_what_it_can_and_keeps_the_rest(
    gated: Serve, make_body: Callable[..., Any], tmp_path: Path
) -> None:
    with gated(storage=tmp_path, drain_seconds=PATIENCE_SECONDS) as server, ThreadPoolExecutor(1) as pool:
        server.gate.hold(1)
        running = pool.submit(server.post, "infer", make_body())
        while not (jobs := server.http.get("/v2/jobs").json()["jobs"]):
            time.sleep(0.02)
        server.held(f"/v2/jobs/{jobs[0]['id']}")
        waiting = server.submit(make_body())
        os.kill(server.process.pid, signal.SIGTERM)
        while (ready := server.http.get("/v2/health/ready")).is_success:
            time.sleep(0.02)
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert server.http.get("/v2/health/live").status_code == 200
        refused = server.post("jobs", make_body())
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert not running.done()
        server.gate.open()
        assert running.result().status_code == 200
        until_ended(server.process)
    database = Database(Settings(storage=str(tmp_path)).database_url)
    with database.reading() as session:
        kept = session.get_one(Job, waiting.removeprefix("/v2/jobs/"))
    database.close()
    assert (kept.state, kept.attempt) == ("pending", 0)


@dataclass(frozen=True)
class Ended:
    """How a process ended after SIGTERM: seconds since it heard the signal, its wait status, and its log."""

    seconds: float
    status: int
    log: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def complaints(self) -> list[str]:
        """Lines that are errors, and tracebacks."""
        known = ('"level": "debug"', '"level": "info"', '"level": "warning"', "open: no API keys")
        return [
            line for line in self.log.splitlines() if "Traceback" in line or not any(kind in line for kind in known)
        ]


def drained(process: ServerProcess) -> Ended:
    os.kill(process.pid, signal.SIGTERM)
    until_ended(process)
    ended = datetime.now(UTC)
    status = int(Path(f"/proc/{process.pid}/stat").read_text().split()[-1])
    log = process.log.read_text()
    (heard,) = [
        datetime.fromisoformat(line["timestamp"]) for line in Ended(0, 0, log).lines if line["event"] == "draining"
    ]
    return Ended((ended - heard).total_seconds(), status, log)


UNHURRIED = {"changes": json.dumps({"ciphershift.server.process.LEAVE_SECONDS": PATIENCE_SECONDS})}


def stopped_workers(process: ServerProcess) -> list[int]:
    """Stops the workers of a process: they hear nothing, as in a layer that takes minutes."""
    stopped = sorted(process.workers())
    for child in stopped:
        os.kill(child, signal.SIGSTOP)
    return stopped


def end(child: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def ask_until(over: threading.Event, url: str) -> None:
    with suppress(httpx.TransportError), httpx.Client(base_url=url) as http:  # at the end it no longer listens
        while not over.is_set():
            http.get("/v2/models/tiny")


@pytest.mark.parametrize("unhurried", [False, True], ids=["in its time", "unhurried"])
@pytest.mark.parametrize("role", ["serve", "api", "worker"])
def test_a_drain_ends_in_its_time_with_streams_uploads_load_and_a_worker_that_does_not_answer(
    gated: Serve,
    zoo: Path,
    bundle: tuple[str, bytes],
    make_body: Callable[..., Any],
    tmp_path: Path,
    role: str,
    unhurried: bool,
) -> None:
    """In its time: the kernel ends what a busy machine has not. Unhurried: it ends by itself, releases its job and logs no error."""
    drain_seconds = 1
    settings: dict[str, Any] = {"storage": tmp_path, "drain_seconds": drain_seconds}
    settings |= UNHURRIED if unhurried else {}
    local = {**settings, "engine": "local://?threads=1"}
    waiting = {**settings, "engine": "queue://", "wait_until_ready": False}
    with ExitStack() as stack:
        server = stack.enter_context(gated(**(local if role == "serve" else waiting)))
        process = server.process
        server.gate.hold(1)
        if role == "worker":
            program = ("-P", gated_server.__file__, "worker")
            options = {"models": zoo, "allow_toy_parameters": True, "gate": server.gate.path, "program": program}
            process = stack.enter_context(running_server(**local, **options))
        locations = [server.submit(make_body(2)) for _ in range(2)]
        if role != "api":
            server.held(locations[0])
        for child in stopped_workers(process):
            stack.callback(end, child)
        for location in locations:
            stream = stack.enter_context(server.http.stream("GET", f"{location}/events"))
            assert next(stream.iter_lines())
        host, port = process.url.removeprefix("http://").split(":")
        for _ in range(20):
            upload = stack.enter_context(socket.create_connection((host, int(port))))
            head = f"PUT /v2/keys/{bundle[0]} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(bundle[1])}\r\n\r\n"
            upload.sendall(head.encode() + bundle[1][:-1])
        pool, over = stack.enter_context(ThreadPoolExecutor(4)), threading.Event()
        stack.callback(over.set)
        for _ in range(4):
            pool.submit(ask_until, over, process.url)
        ended = drained(process)
    released = sum(line["event"] == "job_released" for line in ended.lines)
    if unhurried:
        assert ended.status == 0
        assert ended.complaints == []
        assert released == (role != "api")
    else:
        assert ended.status in (0, signal.SIGALRM)
        assert ended.seconds < drain_seconds + 2
    database = Database(Settings(storage=str(tmp_path)).database_url)
    with database.reading() as session:
        kept = [session.get_one(Job, location.removeprefix("/v2/jobs/")) for location in locations]
    database.close()
    taken = int(role != "api" and not released)  # its lease has to end first
    assert sorted((job.state, job.attempt) for job in kept) == sorted(
        [("pending", 0)] * (2 - taken) + [("in_progress", 1)] * taken
    )


def test_what_is_left_of_the_drains_time_is_for_those_who_still_listen(
    gated: Serve, make_body: Callable[..., Any], tmp_path: Path
) -> None:
    """As on a busy machine: streams notice after two seconds that the server stops. They are not cut off."""
    late = {"changes": json.dumps({"ciphershift.server.api.routes.jobs.POLL_SECONDS": 2.0})}
    settings = {"storage": tmp_path, "drain_seconds": PATIENCE_SECONDS, "engine": "queue://", "wait_until_ready": False}
    with gated(**settings, **late) as server:
        location = server.submit(make_body())
        with server.http.stream("GET", f"{location}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: progress"
            ended = drained(server.process)
            assert not any("event" in line for line in lines), "it ends whole, without another event"
    assert (ended.status, ended.complaints) == (0, [])
