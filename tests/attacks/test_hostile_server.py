"""A malicious server against the client: every word of its profile and its answers damaged; typed errors, nothing sent after them.

The client's steps are driven by hand, with the profile of a real server and answers that are bound as a real one's, so hundreds of damaged
ones cost little; that a body cannot be endless, or inflate, is shown with sockets.
"""

import gzip
import hashlib
import json
import random
import resource
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client._requests import Request
from ciphershift.client._session import Session
from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.ciphertexts import Binding, PackedAnswer
from ciphershift.protocol import tensors
from ciphershift.protocol.container import read_header
from ciphershift.protocol.tensors import HEADER_LENGTH
from tests.support.hostile import Tally, Target, cases

TOY = params.get("TOY_N128")
PER_CHECK = 20


@pytest.fixture(scope="module")
def profile(server: ServerProcess) -> dict[str, Any]:
    content: dict[str, Any] = httpx.get(f"{server.url}/v2/models/tiny/profile").json()
    return content


def session(keystore: Keystore) -> Session:
    return Session("tiny", keystore, allow_toy_parameters=True, show_progress=False)


def answer(content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(200, content=content, headers=headers or {}, request=httpx.Request("GET", "http://server/"))


def read_profile(keystore: Keystore, content: bytes) -> BaseException | None:
    """What the client makes of a profile; after an error it sends nothing more."""
    steps = session(keystore).profile()
    next(steps)
    try:
        steps.send(answer(content))
    except StopIteration:
        return None
    except Exception as error:  # the tally counts what is not typed as a crash
        with pytest.raises(StopIteration):
            next(steps)
        return error
    raise AssertionError("the client asked for something else")


WORDS: tuple[Any, ...] = (
    None,
    "",
    "x",
    "../../admin",
    "a b",
    "\x1b[2J",
    "7" * 63,
    "G" * 64,
    "x" * 10_000,
    [],
    [1],
    {},
    {"a": 1},
)
NUMBERS: tuple[Any, ...] = (None, "x", [], {}, [1], float("nan"), float("inf"), -float("inf"), "NaN")
WRONG: dict[str, tuple[Any, ...]] = {
    "model": WORDS[0:2] + WORDS[3:6] + WORDS[8:] + (7, 1.5, True),
    "program_digest": (*WORDS, 7, 1.5, True, "AB" * 32),
    "params_id": (*WORDS, 7, 1.5, True, "AB" * 32),
    "input_shape": (
        *NUMBERS,
        [0, 8, 8],
        [-1, 8, 8],
        [1, 8],
        [1, 8, 8, 8],
        [1, 8, 2**31],
        [1.5, 8, 8],
        [1, 8, None],
        [10**30, 1, 1],
    ),
    "input_levels": (*NUMBERS, 0, -1, 256, 2**31, 10**30, 1.5, {"a": 1}),
    "input_delta": (*NUMBERS, 0, -1, 0.5, 1e300, -1e-300, "0x1p-4", [0.1]),
    "classes": (
        None,
        "",
        "x",
        [],
        {},
        [[]],
        [None],
        [1],
        [True],
        ["x" * 129],
        ["x"] * 1025,
        7,
        1.5,
        True,
        {"a": 1},
        [{}],
    ),
    "turns_to_logits": (*NUMBERS, 0, -1.0, 1e300, 1e-300, [[]], {"a": 1}, "1.0.0", "--1", [1.0], "", "0x"),
    "logit_step": (
        "x",
        [],
        {},
        [1],
        float("nan"),
        float("inf"),
        "NaN",
        0,
        -1,
        -1e300,
        [[]],
        {"a": 1},
        "1.0.0",
        "--1",
        [1.0],
        "",
    ),
    "bootstraps": (*NUMBERS, -1, -(2**70), 2**60, 1.5, "1.5", [[]], {"a": 1}, "-1"),
    "upload_bytes": (*NUMBERS, -1, 2**50, -(2**70), 1.5, "1.5", [[]], {"a": 1}, "-1"),
    "version": (
        None,
        [],
        {},
        [1],
        7,
        1.5,
        True,
        "x" * 129,
        "x" * 10_000,
        ["1"],
        {"a": 1},
        [None],
        [[]],
        10**30,
        -1,
        False,
    ),
    "profile": (
        None,
        [],
        {},
        [1],
        7,
        1.5,
        True,
        "x" * 129,
        "x" * 10_000,
        ["1"],
        {"a": 1},
        [None],
        [[]],
        10**30,
        -1,
        False,
    ),
    "security_bits": (*NUMBERS, [[]], {"a": 1}, "1.0.0", "--1", [1.0], "", "0x", -1.0, 1e5),
    "key_bytes": (*NUMBERS, -1, 0, 1, 2**50, 10**400, 1.5, [[]], {"a": 1}, "-1", True, "x"),
    "download_bytes": (*NUMBERS, -1, 0, 1, 2**50, 10**400, 1.5, [[]], {"a": 1}, "-1", True, "x"),
    "max_batch": (*NUMBERS, -1, 0, 2**31, 2**50, 10**400, 1.5, [[]], {"a": 1}, "-1", "x", {}),
}


@pytest.mark.parametrize("member", WRONG)
def test_every_member_of_the_profile_is_checked(
    keystore: Keystore, profile: dict[str, Any], tally: Tally, member: str
) -> None:
    assert read_profile(keystore, json.dumps(profile).encode()) is None
    for value in WRONG[member]:
        error = read_profile(keystore, json.dumps(profile | {member: value}).encode())
        tally.refuse("server's profile", "members of the profile", error, errors.MalformedError)
    missing = {name: value for name, value in profile.items() if name != member}
    error = read_profile(keystore, json.dumps(missing).encode())
    tally.refuse("server's profile", "members of the profile", error, errors.MalformedError)


def test_a_refinement_that_cannot_be_is_refused(keystore: Keystore, profile: dict[str, Any], tally: Tally) -> None:
    """Also a usual one, as there are look-ups."""
    for value in (*NUMBERS[1:], 0, 1, 2, 64, 257, -64, 1.5, [[]], {"a": 1}):
        error = read_profile(keystore, json.dumps(profile | {"output_refinement": value}).encode())
        tally.refuse("server's profile", "members of the profile", error, errors.MalformedError)


def test_a_profile_that_is_no_json_object_is_refused(keystore: Keystore, profile: dict[str, Any], tally: Tally) -> None:
    rng, text = random.Random(6), json.dumps(profile).encode()
    whole = [b"", b"[]", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b"\xff\xfe", text + text]
    for content in whole + [text[: rng.randrange(len(text))] for _ in range(200)]:
        tally.refuse("server's profile", "JSON of the profile", read_profile(keystore, content), errors.MalformedError)


def test_random_damage_to_a_profile_is_refused_or_harmless(keystore: Keystore, profile: dict[str, Any]) -> None:
    """Damage inside a name or a number may leave a usable profile; nothing but a typed error may come of the rest."""
    rng, text = random.Random(7), json.dumps(profile).encode()
    outcomes = []
    for _ in range(500):
        damaged = bytearray(text)
        for at in rng.sample(range(len(text)), 2):
            damaged[at] = rng.randrange(256)
        outcomes.append(read_profile(keystore, bytes(damaged)))
    assert all(error is None or isinstance(error, CiphershiftError) for error in outcomes)


def test_a_profile_with_parameters_that_are_not_known_or_too_weak_is_refused(
    keystore: Keystore, profile: dict[str, Any]
) -> None:
    unknown = read_profile(keystore, json.dumps(profile | {"params_id": "77" * 32}).encode())
    assert type(unknown) is errors.UnknownParamsError


def job(state: str, profile: dict[str, Any]) -> dict[str, Any]:
    """What a true server says of a job."""
    progress = {"bootstraps_done": 0, "bootstraps_total": profile["bootstraps"]}
    return {
        "id": "7" * 32,
        "model": "tiny",
        "model_version": "1",
        "state": state,
        "images": 1,
        "created": "2026-01-01T00:00:00Z",
        "progress": progress,
    }


class Conversation:
    """A client that has come to its inference, and the answer that a true server would give, made without one."""

    def __init__(self, session: Session, profile: dict[str, Any], images: NDArray[np.uint8]) -> None:
        self.steps = session.predict(images[:1], None)
        step = next(self.steps)
        while isinstance(step, Request) and not step.path.endswith("/jobs"):
            step = self.steps.send(answer(json.dumps(profile).encode() if step.path.endswith("/profile") else b"{}"))
        assert isinstance(step, Request)
        assert isinstance(step.content, bytes)
        self.profile = profile
        request, tensor, _ = tensors.parse_request(step.headers[HEADER_LENGTH], step.content)
        (image,) = tensors.split_elements(tensor)
        self.request_id = request.id
        self.binding = Binding(
            key_id=read_header(image).key_id,
            request=hashlib.sha256(image).hexdigest(),
            program=profile["program_digest"],
        )
        residues = np.random.default_rng().integers(1, 1 << TOY.answer_bits, TOY.answer_ring.ring_degree + 3)
        c0, c1 = np.split(residues.astype(np.uint64), [3])
        self.good = PackedAnswer(params=TOY, binding=self.binding, c0=c0, c1=c1).to_bytes()
        events = self.steps.send(answer(json.dumps(job("pending", profile)).encode()))
        assert isinstance(events, Request)
        assert events.receive is not None
        events.receive(b"event: completed\nid: 1\ndata: " + json.dumps(job("completed", profile)).encode() + b"\n\n")
        result = self.steps.send(answer(b""))
        assert isinstance(result, Request)
        assert result.path.endswith("/result")
        self.answer_limit = result.answer_limit

    def end(self, container: bytes | None = None, **members: Any) -> BaseException | None:
        """Gives the answer, with another container or other members of its header (... leaves one out), and returns the error."""
        header = {"id": self.request_id, "parameters": {"server_seconds": 0.1}} | members
        text = json.dumps({name: value for name, value in header.items() if value is not ...}).encode()
        data = self.good if container is None else container
        return self.end_raw(text + tensors.join_elements([data]), str(len(text)))

    def end_raw(self, content: bytes, header_length: str) -> BaseException | None:
        """Gives the answer. If its digests are wrong, the client looks whether the model was changed, and finds the same profile."""
        try:
            step = self.steps.send(answer(content, {HEADER_LENGTH: header_length}))
            if isinstance(step, Request) and step.path == "/v2/models/tiny/profile":
                self.steps.send(answer(json.dumps(self.profile).encode()))
        except StopIteration:
            return None
        except Exception as error:  # the tally counts what is not typed as a crash
            with pytest.raises(StopIteration):
                next(self.steps)
            return error
        raise AssertionError("the client sent something after an answer")

    def target(self) -> Target:
        """The good answer, to be damaged."""
        return Target(
            name="answer",
            good=self.good,
            read=lambda data: None,
            fields=PackedAnswer._fields(TOY, 3),
            ranges={},
            masks=("c1",),
            bindings=("request", "program"),
        )


@pytest.fixture
def converse(keystore: Keystore, profile: dict[str, Any], tiny_images: NDArray[np.uint8]) -> Callable[[], Conversation]:
    one = session(keystore)
    return lambda: Conversation(one, profile, tiny_images)


def test_containers_of_answers(converse: Callable[[], Conversation], tally: Tally) -> None:
    assert converse().end() is None
    checks = len(list(cases(converse().target(), 1, random.Random(0))))
    for i in range(PER_CHECK):
        for check in range(checks):
            talk = converse()
            case = list(cases(talk.target(), 1, random.Random(i), start=i))[check]
            tally.refuse("server's answer", case.check, talk.end(case.data), case.error)


def each(*values: Any) -> tuple[Any, ...]:
    """Values of every type."""
    return values


WRONG_MEMBERS: list[dict[str, Any]] = [
    *({"id": value} for value in each(..., None, 7, "", "x", [], {}, "\x1b[2J")),
    *(
        {"parameters": value}
        for value in each(..., None, 7, "", [], {}, {"server_seconds": None}, {"server_seconds": {}})
    ),
    *({"parameters": {"server_seconds": s}} for s in each("x", [], -1, -1e300, float("nan"), float("inf"), 10**400)),
    *({"id": f"{i:032x}"} for i in range(200)),
]


def test_members_of_answers(converse: Callable[[], Conversation], tally: Tally) -> None:
    for members in WRONG_MEMBERS:
        tally.refuse("server's answer", "members of the answer", converse().end(**members), errors.MalformedError)


def test_framing_of_answers(converse: Callable[[], Conversation], tally: Tally) -> None:
    rng = random.Random(9)
    for i in range(200):
        talk = converse()
        text = json.dumps({"id": talk.request_id, "parameters": {"server_seconds": 0.1}}).encode()
        whole = text + tensors.join_elements([talk.good])
        length = str(len(text))
        if i % 4 == 0:
            whole = whole[: rng.randrange(len(whole))]
        elif i % 4 == 1:
            wrong = rng.choice([0, len(talk.good) - 1, len(talk.good) + 1, rng.randrange(1 << 32)])
            whole = text + struct.pack("<I", wrong) + talk.good
        elif i % 4 == 2:
            length = rng.choice(
                ["-1", "-5", "x", "", "1e3", "9" * 5000, str(len(text) - 1), str(len(text) + 1), str(len(whole))]
            )
        else:
            at = rng.randrange(len(text))
            whole = (
                whole[:at] + bytes([rng.choice([c for c in b'{}[]",:\x00\xff' if c != whole[at]])]) + whole[at + 1 :]
            )
        error = talk.end_raw(whole, length)
        tally.refuse("server's answer", "framing of the answer", error, errors.MalformedError)


class Endless(BaseHTTPRequestHandler):
    """Answers every request with a body that never ends, or that would inflate to 128 MB."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.startswith("/bomb"):
            body = gzip.compress(bytes(1 << 27), 1)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(body)
            return
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        with suppress(ConnectionError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("", errors.TooLargeError, id="endless"),
        pytest.param("/bomb", errors.MalformedError, id="never inflated, hence no JSON"),
    ],
)
def test_a_body_is_cut_off_and_never_inflated(keystore: Keystore, path: str, error: type[CiphershiftError]) -> None:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        url = f"http://127.0.0.1:{listener.server_port}{path}"
        with Client(url, model="tiny", keystore=keystore) as client, pytest.raises(error):
            client.profile()
    finally:
        listener.shutdown()
        listener.server_close()
    if not path:  # the bomb is made in this process, too
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 64 << 20


def test_words_of_a_server_are_fit_for_a_terminal(keystore: Keystore) -> None:
    steps = session(keystore).profile()
    next(steps)
    detail = "\x1b]0;title\x07" + "x" * 5000
    problem = httpx.Response(
        400,
        content=json.dumps({"code": "malformed", "detail": detail}),
        headers={"Content-Type": "application/problem+json"},
        request=httpx.Request("GET", "http://server/"),
    )
    with pytest.raises(errors.MalformedError) as raised:
        steps.send(problem)
    assert raised.value.message.isprintable()
    assert len(raised.value.message) <= 1000


WRONG_JOBS: list[dict[str, Any]] = [
    *(
        {"created": value}
        for value in each("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 1e18, "2026-01-01T00:00:00", {})
    ),
    *({"expires": value} for value in each("0001-01-01T00:00:00Z", -1, "x" * 10_000, [])),
    *({"id": value} for value in ("", "../etc", "x" * 65, "\x1b[2J", 7)),
    *({"images": value} for value in (-1, 2**60, 1.5, "x", None)),
    *({"queue_position": value} for value in (-1, 2**60, 1.5, "x")),
    *({"state": value} for value in ("done", "", None, 1)),
    *(
        {"progress": {"bootstraps_done": 0, "bootstraps_total": 1} | part}
        for part in (
            {"bootstraps_done": -1},
            {"bootstraps_total": 2**60},
            {"eta_seconds": -1},
            {"eta_seconds": 1e300},
            {"eta_seconds": float("nan")},
            {"images_done": 2**60},
            {"layer": 7},
        )
    ),
]


@pytest.mark.parametrize("members", WRONG_JOBS)
def test_every_member_of_a_job_is_bounded(keystore: Keystore, profile: dict[str, Any], members: dict[str, Any]) -> None:
    """What is printed as a local time, a bar or a table must be printable as one."""
    steps = session(keystore).status("7" * 32)
    next(steps)
    with pytest.raises(errors.MalformedError):
        steps.send(answer(json.dumps(job("pending", profile) | members).encode()))


def test_a_profile_cannot_make_the_client_wait_for_a_huge_answer(converse: Callable[[], Conversation]) -> None:
    """The limit of an answer follows from parameters and classes, not from what the server says of sizes."""
    talk = converse()
    assert talk.answer_limit < 1 << 20
