"""Nothing that the client sends depends on what it decrypted, and only what the table of published rows lists is sent at all."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Keystore
from ciphershift.client._requests import Request
from ciphershift.client._session import Session
from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto import params
from ciphershift.protocol import container, tensors
from ciphershift.protocol.container import HEADER_BYTES, Kind
from tests.support.wire import WatchedTransport, answer, split_answer

TOY = params.get("TOY_N128")
PROFILE = "/v2/models/tiny/profile"
Change = Callable[[bytes], bytes]


def trace(
    server: ServerProcess, keystore: Keystore, images: NDArray[np.uint8], change: Change
) -> tuple[list[Request], NDArray[np.float64] | CiphershiftError]:
    """All that a client sends for these images, and what it makes of answers that are changed on the way."""

    def changed(response: httpx.Response) -> httpx.Response:
        text, rows = split_answer(response)
        return answer(json.loads(text), [change(row) for row in rows], response.request)

    session = Session("tiny", keystore, allow_toy_parameters=True)
    with closing(WatchedTransport(server.url, changed)) as transport:
        try:
            return transport.sent, transport.run(session.predict(images, None))
        except CiphershiftError as error:
            return transport.sent, error


def shape(sent: list[Request]) -> list[tuple[Any, ...]]:
    """What an observer sees of requests whose bodies are encrypted: order, place, headers and sizes, without names drawn at random.

    How often a client looks after a job depends on the server's time alone; one look stands for all.
    """
    looks = re.compile("/v2/jobs/[0-9a-f]{32}(/events)?$")
    seen = [
        (
            call.method,
            re.sub("[0-9a-f]{32}", "JOB", call.path) if not looks.match(call.path) else "LOOK",
            sorted(name for name in call.headers if name != "Last-Event-ID"),
            len(call.content),
        )
        for call in sent
    ]
    return [call for call, before in zip(seen, [None, *seen], strict=False) if call[1] != "LOOK" or before != call]


def garbage(data: bytes) -> bytes:
    """A well-formed, rightly bound answer that decrypts to noise."""
    payload = data[HEADER_BYTES : HEADER_BYTES + 64] + np.random.default_rng().bytes(len(data) - HEADER_BYTES - 64)
    payload = payload[:71] + bytes([payload[71] & 0x0F]) + payload[72:]  # the padding behind three words of 20 bits
    return container.pack(Kind.PACKED_ANSWER, TOY.id, container.read_header(data).key_id, payload)


def other_model(data: bytes) -> bytes:
    payload = data[HEADER_BYTES : HEADER_BYTES + 32] + b"\x77" * 32 + data[HEADER_BYTES + 64 :]
    return container.pack(Kind.PACKED_ANSWER, TOY.id, container.read_header(data).key_id, payload)


@pytest.fixture(scope="module")
def good(server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8]) -> list[Request]:
    trace(server, keystore, tiny_images[:1], lambda data: data)  # the keys are uploaded once, whatever comes after
    sent, logits = trace(server, keystore, tiny_images[:3], lambda data: data)
    assert isinstance(logits, np.ndarray)
    return sent


def test_requests_are_the_same_for_a_good_and_a_garbage_answer(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], good: list[Request]
) -> None:
    sent, logits = trace(server, keystore, tiny_images[:3], garbage)
    assert isinstance(logits, np.ndarray)
    assert shape(sent) == shape(good)


def test_requests_are_the_same_for_other_images(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], good: list[Request]
) -> None:
    black, _ = trace(server, keystore, np.zeros_like(tiny_images[:3]), lambda data: data)
    assert shape(black) == shape(good)


@pytest.mark.parametrize(
    ("change", "error", "after"),
    [
        pytest.param(other_model, errors.WrongAnswerError, [PROFILE], id="another model's"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), errors.DigestMismatchError, [], id="damaged"),
    ],
)
def test_after_an_answer_that_is_refused_nothing_is_sent_but_a_look_at_the_profile(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    good: list[Request],
    change: Change,
    error: type[CiphershiftError],
    after: list[str],
) -> None:
    """What makes the client stop, or read the profile again, is public: the server that changed the answer learns nothing from it."""
    sent, outcome = trace(server, keystore, tiny_images[:3], change)
    assert type(outcome) is error
    assert shape(sent)[: len(shape(good))] == shape(good)
    assert [call.path for call in sent[-len(after) or len(sent) :]] == after
    assert sum(call.path.endswith("/result") for call in sent) == 1


def test_the_trace_would_show_a_retry(good: list[Request]) -> None:
    assert shape([*good, good[-1]]) != shape(good)


def test_only_published_kinds_are_sent(good: list[Request], keystore: Keystore) -> None:
    """Every binary body is a container of a kind that the table of published rows covers."""
    kinds = set()
    for call in good:
        if isinstance(call.content, bytes) and call.content:
            _, tensor = tensors.split_body(call.headers[tensors.HEADER_LENGTH], call.content)
            kinds |= {container.read_header(image).kind for image in tensors.split_elements(tensor)}
    kinds.add(container.read_header(keystore.open(TOY).evaluation_keys.read_bytes()).kind)
    assert kinds == {Kind.CKKS_CIPHERTEXT, Kind.EVALUATION_KEYS}
