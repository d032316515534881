"""Following a job of a real server by its events, with an odd place between the two."""

import threading
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.client import Client, JobStatus, Keystore
from ciphershift.client import _sse as sse
from ciphershift.client._sse import MAX_IDLE_BYTES
from tests.support.gated_server import Gate

Handler = BaseHTTPRequestHandler
Middle = Callable[[Callable[..., bool]], AbstractContextManager[Any]]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "POLL_SECONDS", 0.05)


def client_of(middle: Any, keystore: Keystore) -> Client:
    return Client(middle.url, model="tiny", keystore=keystore, allow_toy_parameters=True, retry_timeout=60.0)


def streams(write: Callable[[Handler, int], object]) -> Callable[..., bool]:
    """A hook that answers the event streams: `write` is given the handler and the number of the stream, from 0."""
    number = iter(range(1000))

    def hook(handler: Handler, _: object) -> bool:
        if not handler.path.endswith("/events"):
            return False
        handler.send_response_only(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.close_connection = True
        write(handler, next(number))
        return True

    return hook


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b": ping\n\n", id="a heartbeat alone"),
        pytest.param(b"event: other\ndata: {}\n\n", id="an event of another kind"),
        pytest.param(b"event: progress\nid: 1\ndata: {", id="cut off"),
    ],
)
def test_a_stream_that_says_nothing_delays_the_end_and_does_not_lose_it(
    between: Middle, keystore: Keystore, tiny_images: NDArray[np.uint8], stream: bytes
) -> None:
    with (
        between(streams(lambda handler, _: handler.wfile.write(stream))) as middle,
        client_of(middle, keystore) as client,
    ):
        assert client.predict(tiny_images[:1]).shape == (1, 3)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        pytest.param(b"event: progress\ndata: {}\n\n", errors.MalformedError, id="no job"),
        pytest.param(b"event: progress\ndata: [\n\n", errors.MalformedError, id="no JSON"),
        pytest.param(b"event: progress\ndata: \xff\n\n", errors.MalformedError, id="no text"),
        pytest.param(b"event: progress\ndata: " + b"[" * 50_000 + b"\n\n", errors.MalformedError, id="deep"),
        pytest.param(b"data: " + b"x" * 100_000 + b"\n\n", errors.TooLargeError, id="large"),
    ],
)
def test_a_stream_of_garbage_is_a_typed_error(
    between: Middle, keystore: Keystore, tiny_images: NDArray[np.uint8], stream: bytes, error: type[Exception]
) -> None:
    with (
        between(streams(lambda handler, _: handler.wfile.write(stream))) as middle,
        client_of(middle, keystore) as client,
        pytest.raises(error),
    ):
        client.predict(tiny_images[:1])


def test_the_events_of_another_job_are_refused(
    between: Middle, keystore: Keystore, client: Client, tiny_images: NDArray[np.uint8]
) -> None:
    other = client.submit(tiny_images[:1])
    data = other.wait().model_dump_json().encode()
    stream = b"event: completed\ndata: " + data + b"\n\n"
    with (
        between(streams(lambda handler, _: handler.wfile.write(stream))) as middle,
        client_of(middle, keystore) as odd,
        pytest.raises(errors.MalformedError, match="contained an event of job"),
    ):
        odd.predict(tiny_images[:1])


def test_an_endless_stream_is_bounded_in_memory(
    between: Middle, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    def write(handler: Handler, _: int) -> None:
        while True:
            handler.wfile.write(b": nothing yet\n\n" * 1000)

    with between(streams(write)) as middle, client_of(middle, keystore) as client:
        client.prepare()
        tracemalloc.start()
        with pytest.raises(errors.TooLargeError):
            client.predict(tiny_images[:1])
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_IDLE_BYTES
        tracemalloc.stop()


def test_an_endless_stream_of_good_events_is_bounded_in_time(
    between: Middle, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    def hook(handler: Handler, middle: Any) -> bool:
        if handler.command == "POST":
            pending.append(middle.ask(handler))
            give(handler, pending[0])
            return True
        if handler.command == "GET" and handler.path.startswith("/v2/jobs/") and not handler.path.endswith("/events"):
            give(handler, pending[0])  # the job never ends
            return True
        return stream(handler, middle)

    def write(handler: Handler, _: int) -> None:
        while True:
            handler.wfile.write(b"event: progress\nid: 1\ndata: " + pending[0].content + b"\n\n")

    pending: list[httpx.Response] = []
    stream = streams(write)
    with between(hook) as middle, client_of(middle, keystore) as client:
        with pytest.raises(errors.DeadlineError, match=r"not finished after 0\.5 s"):
            client.predict(tiny_images[:1], timeout=0.5)
        assert ("DELETE", f"/v2/jobs/{pending[0].json()['id']}") in middle.seen


def give(handler: Handler, response: httpx.Response) -> None:
    handler.send_response_only(200)
    handler.send_header("Content-Length", str(len(response.content)))
    handler.end_headers()
    handler.wfile.write(response.content)


def test_a_silent_stream_is_bounded_in_time(
    between: Middle, keystore: Keystore, tiny_images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SILENCE_SECONDS", 0.2)
    over = threading.Event()
    with between(streams(lambda *_: over.wait(300))) as middle, client_of(middle, keystore) as client:
        status = client.submit(tiny_images).wait()  # by polling, after each silent stream
        over.set()
    assert status.state == "completed"


def test_a_stream_is_taken_up_after_its_last_event(
    between: Middle, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    """The first stream breaks after one event; the second is asked for with that event's id."""

    def hook(handler: Handler, middle: Any) -> bool:
        if not handler.path.endswith("/events") or handler.headers.get("Last-Event-ID"):
            return False
        handler.send_response_only(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.close_connection = True
        with middle._http.stream("GET", handler.path) as response:
            for line in response.iter_lines():
                handler.wfile.write(line.encode() + b"\n")
                if not line:
                    break
        return True

    seen: list[JobStatus] = []
    with between(hook) as middle, client_of(middle, keystore) as client:
        job = client.submit(tiny_images)
        assert job.wait(on_progress=seen.append).state == "completed"
        asked = [h["Last-Event-ID"] for h in middle.headers if "Last-Event-ID" in h]
    assert asked
    assert asked[0].isdecimal()
    done = [status.progress.bootstraps_done for status in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].progress.bootstraps_total == 4 * 144


def test_progress_is_told_on_the_way(gated: tuple[Client, Gate], tiny_images: NDArray[np.uint8]) -> None:
    client, gate = gated
    seen: list[JobStatus] = []

    def take(status: JobStatus) -> None:
        seen.append(status)
        if status.progress.bootstraps_done > 0:
            gate.open()

    client.submit(tiny_images).wait(on_progress=take)
    running = [status.progress for status in seen if 0 < status.progress.bootstraps_done < 4 * 144]
    assert running
    assert {progress.layer for progress in running} <= {"conv", "pool", "relu", "flatten", "dense"}
    assert any(progress.eta_seconds is not None for progress in running)
    assert seen[-1].state == "completed"
    assert seen[-1].progress.images_done == 4
