"""One call, driven by hand: what is sent again, for how long, and what is not."""

import json
from collections.abc import Sequence

import httpx
import pytest

from ciphershift import errors
from ciphershift.client._requests import IDEMPOTENCY_KEY, RETRIED, Request, Retrying, Sleep, Step, Steps

REQUEST = httpx.Request("GET", "http://server/v2/models/m/profile")
GOOD = httpx.Response(200, request=REQUEST)
GET = Request(method="GET", path="/v2/jobs")
PATIENCE = 20.0


def problem(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    content = json.dumps({"code": code, "detail": "why", "status": status})
    given = {"Content-Type": "application/problem+json"} | (headers or {})
    return httpx.Response(status, content=content, headers=given, request=REQUEST)


def steps_after(answers: Sequence[httpx.Response | Exception], call: Request = GET) -> list[Step]:
    """The steps of a call that gets these answers one after the other, and the last of them for ever."""
    return list(run(Retrying(PATIENCE)(call), answers))


def run(steps: Steps[httpx.Response], answers: Sequence[httpx.Response | Exception]) -> list[Step]:
    seen = [next(steps)]
    left = list(answers)
    try:
        while True:
            if isinstance(seen[-1], Sleep):
                seen.append(steps.send(None))  # type: ignore[arg-type]
                continue
            answer = left.pop(0) if len(left) > 1 else left[0]
            seen.append(steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer))
    except StopIteration:
        return seen


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    assert steps_after([problem(429, "busy", {"Retry-After": "7"}), GOOD]) == [GET, Sleep(7.0), GET]


def test_a_server_that_stays_busy_is_asked_less_and_less_often() -> None:
    busy = problem(429, "busy", {"Retry-After": "1"})
    pauses = [step.seconds for step in steps_after([busy] * 5 + [GOOD]) if isinstance(step, Sleep)]
    assert pauses[0] == 1.0
    assert all(1.0 <= pause <= 8.0 for pause in pauses)
    assert pauses[-1] >= 6.0


@pytest.mark.parametrize("status", RETRIED)
def test_patience_ends(status: int) -> None:
    steps = Retrying(PATIENCE)(GET)
    waited, step = 0.0, next(steps)
    with pytest.raises(errors.WorkerLostError):
        while True:
            waited += step.seconds if isinstance(step, Sleep) else 0.0
            step = steps.send(problem(status, "worker_lost") if isinstance(step, Request) else None)  # type: ignore[arg-type]
    assert PATIENCE / 2 < waited <= PATIENCE


def test_a_pause_beyond_patience_is_not_begun() -> None:
    with pytest.raises(errors.BusyError):
        steps_after([problem(429, "busy", {"Retry-After": "86400"})])


@pytest.mark.parametrize("asked", ["soon", "-1", "9" * 400, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_pause_that_is_no_number_of_seconds_is_chosen_here(asked: str) -> None:
    _, pause, _ = steps_after([problem(503, "not_ready", {"Retry-After": asked}), GOOD])
    assert isinstance(pause, Sleep)
    assert 0.0 < pause.seconds <= 1.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 500])
def test_other_failures_are_final(status: int) -> None:
    with pytest.raises(errors.MalformedError, match="why"):
        steps_after([problem(status, "malformed")])


def test_a_lost_connection_is_made_again_once_the_server_was_reached() -> None:
    retrying = Retrying(PATIENCE)
    assert run(retrying(GET), [GOOD]) == [GET]
    assert len(run(retrying(GET), [errors.UnreachableError(), errors.UnreachableError(), GOOD])) == 5


def test_first_contact_is_tried_again_within_the_retry_timeout() -> None:
    """A server that starts beside its client may need a moment."""
    assert len(steps_after([errors.UnreachableError("nobody"), errors.UnreachableError("nobody"), GOOD])) == 5
    with pytest.raises(errors.UnreachableError):
        steps_after([errors.UnreachableError("nobody")])
    with pytest.raises(errors.UnreachableError):
        list(run(Retrying(0.0)(GET), [errors.UnreachableError("nobody"), GOOD]))


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    retrying = Retrying(PATIENCE)
    run(retrying(GET), [GOOD])
    with pytest.raises(errors.UntrustedServerError):
        run(retrying(GET), [errors.UntrustedServerError("whose?"), GOOD])


def test_what_would_happen_twice_is_sent_once() -> None:
    retrying = Retrying(PATIENCE)
    post = Request(method="POST", path="/v2/models/m/jobs")
    run(retrying(GET), [GOOD])
    with pytest.raises(errors.UnreachableError):
        run(retrying(post), [errors.UnreachableError(), GOOD])
    with pytest.raises(errors.BusyError):
        run(retrying(post), [problem(429, "busy"), GOOD])
    keyed = Request(method="POST", path="/v2/models/m/jobs", headers={IDEMPOTENCY_KEY: "1"})
    assert len(run(retrying(keyed), [errors.UnreachableError(), GOOD])) == 3


def test_every_code_comes_back_as_its_own_error() -> None:
    for code, error in errors.CiphershiftError.by_code.items():
        with pytest.raises(error) as raised:
            steps_after([problem(400, code)])
        assert type(raised.value) is error


def test_an_answer_from_something_else_is_said_so() -> None:
    with pytest.raises(errors.CiphershiftError, match="is this a ciphershift server"):
        steps_after([httpx.Response(404, content=b"<html>", request=REQUEST)])


def test_a_proxys_limit_is_said_so_with_the_setting_to_raise() -> None:
    sent = httpx.Request("PUT", "https://he.example.org/v2/keys/0", content=bytes(2 << 20))
    refused = httpx.Response(413, html="<h1>413 Request Entity Too Large</h1>", request=sent)
    with pytest.raises(errors.TooLargeError, match=r"refuses 2097152 bytes.*client_max_body_size 256m"):
        steps_after([refused])


def test_an_explanation_cannot_write_on_the_terminal() -> None:
    content = json.dumps({"code": "busy", "detail": "a\x1b[2Jb\r\n" + "c" * 10_000})
    answer = httpx.Response(400, content=content, headers={"Content-Type": "application/problem+json"}, request=REQUEST)
    with pytest.raises(errors.BusyError) as raised:
        steps_after([answer])
    assert raised.value.message.startswith("a\N{REPLACEMENT CHARACTER}[2Jb")
    assert len(raised.value.message) < 3000
