"""Jobs over HTTP: accepted, followed, fetched, canceled; kept through kill -9, drain and lost workers."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import running_server

INFER, JOBS = "/v2/models/tiny/infer", "/v2/models/tiny/jobs"
LONG = 60  # images of a job that takes seconds


@pytest.fixture(scope="module")
def http(zoo: Path, bundle: tuple[str, bytes]) -> Iterator[httpx.Client]:
    with serving(zoo, bundle) as http:
        yield http


class serving:  # noqa: N801 - a context manager
    """A server that has the keys, and an HTTP client of it."""

    def __init__(self, zoo: Path, bundle: tuple[str, bytes], **settings: Any) -> None:
        given = {"engine": "local://?threads=1", "max_batch": 500, **settings}
        self._running = running_server(models=zoo, allow_toy_parameters=True, **given)
        self._bundle = bundle

    def __enter__(self) -> httpx.Client:
        self.process = self._running.__enter__()
        self.http = httpx.Client(base_url=self.process.url, timeout=60)
        assert self.http.put(f"/v2/keys/{self._bundle[0]}", content=self._bundle[1]).status_code == 201
        return self.http

    def __exit__(self, *error: Any) -> None:
        self.http.close()
        self._running.__exit__(*error)


def post(http: httpx.Client, path: str, body: Any, **headers: str) -> httpx.Response:
    return http.post(path, content=body.content, headers=body.headers | headers)


def wait(http: httpx.Client, location: str, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while (job := http.get(location).json())["state"] in ("pending", "in_progress"):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def wait_for_progress(http: httpx.Client, location: str) -> dict[str, Any]:
    while not (job := http.get(location).json())["progress"]["bootstraps_done"]:
        assert job["state"] in ("pending", "in_progress"), job
        time.sleep(0.05)
    return job


def header_of(answer: httpx.Response) -> dict[str, Any]:
    return json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])


@pytest.mark.parametrize(
    ("path", "headers"), [(JOBS, {}), (INFER, {"Prefer": "respond-async"})], ids=["jobs", "respond-async"]
)
def test_a_job_is_accepted_computed_and_fetched(
    http: httpx.Client, make_body: Callable[..., Any], path: str, headers: dict[str, str]
) -> None:
    accepted = post(http, path, make_body(2), **headers)
    assert accepted.status_code == 202
    assert accepted.headers.get("Preference-Applied") == headers.get("Prefer")
    location = accepted.headers["Location"]
    assert location == f"/v2/jobs/{accepted.json()['id']}"
    job = wait(http, location)
    assert (job["state"], job["images"], job["error"]) == ("completed", 2, None)
    assert job["progress"]["bootstraps_done"] == job["progress"]["bootstraps_total"] == 2 * 144
    assert job["created"] <= job["started"] <= job["finished"] < job["expires"]
    result = http.get(f"{location}/result")
    assert result.status_code == 200
    assert header_of(result)["outputs"][0]["shape"] == [2]
    assert http.get("/v2/jobs", params={"limit": 1}).json()["jobs"][0]["id"] == job["id"]


def test_plain_infer_is_the_same_job_waited_for(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    answer = post(http, INFER, make_body())
    assert answer.status_code == 200
    again = http.get(answer.headers["Content-Location"])
    assert again.content == answer.content
    assert header_of(again) == header_of(answer)


def test_the_same_idempotency_key_is_computed_once(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    body = make_body()
    first, second = (post(http, INFER, body, **{"Idempotency-Key": "once"}) for _ in range(2))
    assert first.content == second.content  # a second computation would have other masks
    other = post(http, INFER, make_body(), **{"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


def events(http: httpx.Client, location: str, **headers: str) -> list[dict[str, Any]]:
    with http.stream("GET", f"{location}/events", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    blocks = [block for block in text.split("\n\n") if "event:" in block]
    return [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in blocks]


def test_events_tell_progress_up_to_the_end(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    location = post(http, JOBS, make_body(LONG)).headers["Location"]
    told = events(http, location)
    jobs = [json.loads(event["data"]) for event in told]
    assert [event["event"] for event in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-1]["event"] == jobs[-1]["state"] == "completed"
    ids = [int(event["id"]) for event in told]
    assert ids == sorted(set(ids))
    done = [job["progress"]["bootstraps_done"] for job in jobs]
    assert len(set(done)) > 3
    assert done == sorted(done)
    assert done[-1] == LONG * 144
    halfway = [job["progress"] for job in jobs if job["state"] == "in_progress" and job["progress"]["layer"]]
    assert all(progress["eta_seconds"] >= 0 for progress in halfway)
    assert halfway[0]["eta_seconds"] > halfway[-1]["eta_seconds"]
    resumed = events(http, location, **{"Last-Event-ID": str(ids[-2])})
    assert [event["id"] for event in resumed] == [str(ids[-1])]


def test_a_running_job_is_canceled_between_two_layers(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    location = post(http, JOBS, make_body(500)).headers["Location"]
    early = http.get(f"{location}/result")
    assert (early.status_code, early.json()["code"]) == (409, "not_finished")
    wait_for_progress(http, location)
    assert http.delete(location).status_code == 200
    job = wait(http, location, 5)
    assert job["state"] == "canceled"
    assert job["progress"]["bootstraps_done"] < job["progress"]["bootstraps_total"] / 2
    late = http.get(f"{location}/result")
    assert (late.status_code, late.json()["code"]) == (409, "canceled")
    assert events(http, location)[-1]["event"] == "canceled"
    assert post(http, INFER, make_body()).status_code == 200


def test_a_waiting_job_knows_its_place_and_can_be_canceled(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    first, second, third = (post(http, JOBS, make_body(LONG)).headers["Location"] for _ in range(3))
    wait_for_progress(http, first)
    assert [http.get(location).json()["queue_position"] for location in (first, second, third)] == [None, 0, 1]
    assert http.delete(second).json()["state"] == "canceled"
    assert http.get(third).json()["queue_position"] == 0
    http.delete(third)
    http.delete(first)


def test_a_client_that_goes_gives_its_worker_free(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post(INFER, content=(body := make_body(500)).content, headers=body.headers, timeout=1)
    assert post(http, INFER, make_body()).status_code == 200
    (abandoned,) = [job for job in http.get("/v2/jobs").json()["jobs"][:2] if job["images"] == 500]
    assert abandoned["state"] == "canceled"


def test_a_forgotten_result_is_gone(http: httpx.Client, make_body: Callable[..., Any]) -> None:
    answer = post(http, INFER, make_body())
    result = answer.headers["Content-Location"]
    assert http.delete(result.removesuffix("/result")).json()["state"] == "completed"
    gone = http.get(result)
    assert (gone.status_code, gone.json()["code"]) == (410, "expired")


def test_the_jobs_own_error_is_the_answer(http: httpx.Client, make_body: Callable[..., Any], keystore: Any) -> None:
    body = make_body()
    spoilt = body.content[:-1] + bytes([body.content[-1] ^ 1])
    accepted = http.post(JOBS, content=spoilt, headers=body.headers)
    assert accepted.status_code == 202
    job = wait(http, accepted.headers["Location"])
    assert (job["state"], job["error"]["code"]) == ("failed", "digest_mismatch")
    result = http.get(f"{accepted.headers['Location']}/result")
    assert (result.status_code, result.json()["code"]) == (400, "digest_mismatch")
    assert events(http, accepted.headers["Location"])[-1]["event"] == "failed"


@pytest.mark.parametrize("path", ["", "/result", "/events"])
def test_an_unknown_job_is_said_so(http: httpx.Client, path: str) -> None:
    answer = http.get(f"/v2/jobs/{'00' * 16}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_killed_servers_lose_no_job(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"storage": tmp_path, "lease_seconds": 1}
    body = make_body()
    with (first := serving(zoo, bundle, **settings)) as http:
        done = post(http, INFER, body)
        locations = [post(http, JOBS, make_body(20)).headers["Location"] for _ in range(4)]
        wait_for_progress(http, locations[0])
        os.kill(first.process.pid, signal.SIGKILL)
    with (second := serving(zoo, bundle, **settings)) as http:
        assert http.get(done.headers["Content-Location"]).content == done.content
        wait_for_progress(http, locations[1])
        os.kill(second.process.pid, signal.SIGKILL)
    with serving(zoo, bundle, **settings) as http:
        assert [wait(http, location)["state"] for location in locations] == ["completed"] * 4
        for location in locations:
            assert header_of(http.get(f"{location}/result"))["outputs"][0]["shape"] == [20]


def test_a_stopping_server_finishes_what_it_can_and_keeps_the_rest(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"storage": tmp_path, "drain_seconds": 3}
    with (first := serving(zoo, bundle, **settings)) as http, ThreadPoolExecutor(1) as pool:
        short = pool.submit(post, http, INFER, make_body(60))
        time.sleep(0.1)
        long = post(http, JOBS, make_body(500)).headers["Location"]
        os.kill(first.process.pid, signal.SIGTERM)
        time.sleep(0.2)
        ready = http.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert http.get("/v2/health/live").status_code == 200
        refused = post(http, JOBS, make_body())
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert short.result().status_code == 200
    with serving(zoo, bundle, **settings) as http:
        job = wait_for_progress(http, long)
        assert job["state"] == "in_progress"
        http.delete(long)
