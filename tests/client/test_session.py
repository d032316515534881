"""The client's steps, driven by hand: what is sent again, and what is not."""

import json

import httpx
import pytest

from client import Keystore
from client.protocol import Call
from client.session import ATTEMPTS, Pause, Session
from he_layers.crypto import errors

REQUEST = httpx.Request("GET", "http://server/v2/models/m/profile")


def problem(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    content = json.dumps({"code": code, "detail": "why", "status": status})
    given = {"Content-Type": "application/problem+json"} | (headers or {})
    return httpx.Response(status, content=content, headers=given, request=REQUEST)


def session() -> Session:
    return Session("m", Keystore(), allow_toy_parameters=True, show_progress=False)


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    steps = session().profile()
    first = next(steps)
    assert isinstance(first, Call)
    assert steps.send(problem(429, "busy", {"Retry-After": "7"})) == Pause(7.0)
    assert steps.send(None) == first  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_attempts_end(status: int) -> None:
    steps = session().profile()
    step = next(steps)
    calls = 0
    with pytest.raises(errors.WorkerLostError):
        while True:
            calls += isinstance(step, Call)
            step = steps.send(problem(status, "worker_lost") if isinstance(step, Call) else None)  # type: ignore[arg-type]
    assert calls == ATTEMPTS


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_other_failures_are_final(status: int) -> None:
    steps = session().profile()
    next(steps)
    with pytest.raises(errors.MalformedError, match="why"):
        steps.send(problem(status, "malformed"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"model": 1}', b"\xff"])
def test_an_unusable_profile_is_malformed(content: bytes) -> None:
    steps = session().profile()
    next(steps)
    with pytest.raises(errors.MalformedError):
        steps.send(httpx.Response(200, content=content, request=REQUEST))


def test_an_answer_from_something_else_is_said_so() -> None:
    steps = session().profile()
    next(steps)
    with pytest.raises(errors.HEServiceError, match="is this a ciphershift server"):
        steps.send(httpx.Response(404, content=b"<html>", request=REQUEST))
