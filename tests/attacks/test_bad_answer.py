"""A hostile or broken server: whatever it answers, the client raises a typed error and sends nothing more."""

import json
import struct
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.server_process import ServerProcess, running_server
from client import Keystore
from client.protocol import HEADER_LENGTH, Call
from client.session import Session, Step
from he_layers.crypto import container, errors, params
from he_layers.crypto.container import HEADER_BYTES, Kind
from he_layers.crypto.errors import HEServiceError
from he_layers.program import Program

TOY = params.get("TOY_N128")
Spoil = Callable[[dict[str, object], bytes, str], tuple[dict[str, object], bytes]]


def with_bytes(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda payload: payload[:at] + new + payload[at + len(new) :]


def repack(kind: Kind, params_id: str, change: Callable[[bytes], bytes] = lambda payload: payload) -> Spoil:
    return lambda header, data, key: (header, container.pack(kind, params_id, key, change(data[HEADER_BYTES:])))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(lambda h, d, k: (h, b""), errors.BadMagicError, id="nothing"),
        pytest.param(lambda h, d, k: (h, d[:-1]), errors.MalformedError, id="truncated"),
        pytest.param(lambda h, d, k: (h, d * 100), errors.TooLargeError, id="oversized"),
        pytest.param(lambda h, d, k: (h, d[:-1] + bytes([d[-1] ^ 1])), errors.DigestMismatchError, id="a flipped bit"),
        pytest.param(lambda h, d, k: (h | {"id": "another"}, d), errors.MalformedError, id="of another request"),
        pytest.param(lambda h, d, k: ({}, d), errors.MalformedError, id="without a header"),
        pytest.param(
            lambda h, d, k: (h | {"parameters": {"server_seconds": "x"}}, d), errors.MalformedError, id="no number"
        ),
        pytest.param(repack(Kind.CKKS_CIPHERTEXT, TOY.id), errors.WrongKindError, id="another kind"),
        pytest.param(repack(Kind.PACKED_ANSWER, "77" * 32), errors.WrongParamsError, id="other parameters"),
        pytest.param(
            lambda h, d, k: (h, container.pack(Kind.PACKED_ANSWER, TOY.id, "77" * 32, d[HEADER_BYTES:])),
            errors.WrongKeyError,
            id="another key",
        ),
        pytest.param(
            repack(Kind.PACKED_ANSWER, TOY.id, lambda p: p[:64] + bytes(len(p) - 64)),
            errors.NotConformantError,
            id="no encryption at all",
        ),
        pytest.param(repack(Kind.PACKED_ANSWER, TOY.id, lambda p: p[:-1]), errors.WrongLengthError, id="shorter"),
        pytest.param(
            repack(Kind.PACKED_ANSWER, TOY.id, with_bytes(0, b"\x77" * 32)),
            errors.WrongAnswerError,
            id="bound to another request",
        ),
        pytest.param(
            repack(Kind.PACKED_ANSWER, TOY.id, with_bytes(32, b"\x77" * 32)),
            errors.WrongAnswerError,
            id="bound to another program",
        ),
    ],
)
def test_a_wrong_answer(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    spoil: Spoil,
    error: type[HEServiceError],
) -> None:
    with pytest.raises(error) as raised:
        ask(server, keystore, tiny_images[:2], spoil)
    assert type(raised.value) is error


def ask(server: ServerProcess, keystore: Keystore, images: NDArray[np.uint8], spoil: Spoil) -> None:
    """Predicts, with every answer spoilt on its way, and sees to it that nothing follows an error."""
    key_id = keystore.open(TOY).key_id
    steps = Session("tiny", keystore, allow_toy_parameters=True, show_progress=False).predict(images)
    try:
        drive(steps, server, lambda response: spoilt(response, spoil, key_id))
    finally:
        with pytest.raises(StopIteration):
            next(steps)


def drive(
    steps: Generator[Step, httpx.Response, object],
    server: ServerProcess,
    on_the_way: Callable[[httpx.Response], httpx.Response] = lambda response: response,
) -> None:
    """Carries out a session's steps to their end, passing answers of inferences through `on_the_way`."""
    with httpx.Client(base_url=server.url, timeout=60) as http, suppress(StopIteration):
        step = next(steps)
        while True:
            assert isinstance(step, Call)
            response = http.request(step.method, step.path, content=step.content, headers=dict(step.headers))
            step = steps.send(on_the_way(response) if step.path.endswith("/infer") else response)


def spoilt(response: httpx.Response, spoil: Spoil, key_id: str) -> httpx.Response:
    split = int(response.headers[HEADER_LENGTH])
    header, data = spoil(json.loads(response.content[:split]), response.content[split + 4 :], key_id)
    text = json.dumps(header).encode()
    content = text + struct.pack("<I", len(data)) + data
    return httpx.Response(200, content=content, headers={HEADER_LENGTH: str(len(text))}, request=response.request)


def test_a_server_cannot_talk_a_client_into_weak_parameters(server: ServerProcess, keystore: Keystore) -> None:
    steps = Session("tiny", keystore, allow_toy_parameters=False, show_progress=False).profile()
    step = next(steps)
    assert isinstance(step, Call)
    with pytest.raises(errors.InsecureParamsError):
        steps.send(httpx.get(server.url + step.path))


def test_answers_to_two_requests_cannot_be_swapped(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    kept: list[bytes] = []

    def first_answer_again(header: dict[str, object], data: bytes, _: str) -> tuple[dict[str, object], bytes]:
        kept.append(data)
        return header, kept[0]

    with pytest.raises(errors.WrongAnswerError, match="request"):
        ask(server, keystore, tiny_images[:2], first_answer_again)
    assert len(kept) == 2  # the true answer to the first request was taken


def test_an_answer_from_a_model_that_was_changed_is_refused(
    tiny_program: Program, keystore: Keystore, tiny_images: NDArray[np.uint8], tmp_path: Path
) -> None:
    settings = {"models": tmp_path, "allow_toy_parameters": True}
    tiny_program.save(tmp_path / "tiny")
    session = Session("tiny", keystore, allow_toy_parameters=True, show_progress=False)
    with running_server(**settings) as server:
        drive(session.profile(), server)
    replace(tiny_program, version="2").save(tmp_path / "tiny")
    with running_server(**settings) as server, pytest.raises(errors.WrongAnswerError, match="read its profile again"):
        drive(session.predict(tiny_images[:1]), server)
