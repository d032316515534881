"""Nothing that the client sends depends on what it decrypted, and only what the table of published rows lists is sent at all."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.server_process import ServerProcess
from client import Keystore
from client.protocol import HEADER_LENGTH, Call
from client.session import Session, Step
from he_layers.crypto import container, errors, params
from he_layers.crypto.container import HEADER_BYTES, Kind
from he_layers.crypto.errors import HEServiceError

TOY = params.get("TOY_N128")
Change = Callable[[bytes], bytes]


def trace(
    server: ServerProcess, keystore: Keystore, images: NDArray[np.uint8], change: Change
) -> tuple[list[Step], NDArray[np.float64] | HEServiceError]:
    """All that a client sends for these images, and what it makes of answers that are changed on the way."""
    session = Session("tiny", keystore, allow_toy_parameters=True, show_progress=False)
    steps, sent = session.predict(images), []
    with httpx.Client(base_url=server.url, timeout=60) as http:
        try:
            step = next(steps)
            while True:
                sent.append(step)
                assert isinstance(step, Call), "a pause: the client waits to ask again"
                response = http.request(step.method, step.path, content=step.content, headers=dict(step.headers))
                if step.path.endswith("/infer"):
                    split = int(response.headers[HEADER_LENGTH]) + 4
                    content = response.content[:split] + change(response.content[split:])
                    response = httpx.Response(200, content=content, headers=response.headers, request=response.request)
                step = steps.send(response)
        except StopIteration as end:
            return sent, end.value
        except HEServiceError as error:
            return sent, error


def shape(sent: list[Step]) -> list[tuple[Any, ...]]:
    """What an observer sees of requests whose bodies are encrypted: order, place, headers and sizes."""
    return [
        (call.method, call.path, sorted(call.headers.items()), len(call.content))
        for call in sent
        if isinstance(call, Call)
    ]


def garbage(data: bytes) -> bytes:
    """A well-formed, rightly bound answer that decrypts to noise."""
    payload = data[HEADER_BYTES : HEADER_BYTES + 64] + np.random.default_rng().bytes(len(data) - HEADER_BYTES - 64)
    payload = payload[:71] + bytes([payload[71] & 0x0F]) + payload[72:]  # the padding behind three words of 20 bits
    return container.pack(Kind.PACKED_ANSWER, TOY.id, container.read_header(data).key_id, payload)


def other_model(data: bytes) -> bytes:
    payload = data[HEADER_BYTES : HEADER_BYTES + 32] + b"\x77" * 32 + data[HEADER_BYTES + 64 :]
    return container.pack(Kind.PACKED_ANSWER, TOY.id, container.read_header(data).key_id, payload)


@pytest.fixture(scope="module")
def good(server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8]) -> list[Step]:
    trace(server, keystore, tiny_images[:1], lambda data: data)  # the keys are uploaded once, whatever comes after
    sent, logits = trace(server, keystore, tiny_images[:3], lambda data: data)
    assert isinstance(logits, np.ndarray)
    return sent


def test_requests_are_the_same_for_a_good_and_a_garbage_answer(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], good: list[Step]
) -> None:
    sent, logits = trace(server, keystore, tiny_images[:3], garbage)
    assert isinstance(logits, np.ndarray)
    assert shape(sent) == shape(good)


def test_requests_are_the_same_for_other_images(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8], good: list[Step]
) -> None:
    black, _ = trace(server, keystore, np.zeros_like(tiny_images[:3]), lambda data: data)
    assert shape(black) == shape(good)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(other_model, errors.WrongAnswerError, id="another model's"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), errors.DigestMismatchError, id="damaged"),
    ],
)
def test_after_an_answer_that_is_refused_nothing_is_sent(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    good: list[Step],
    change: Change,
    error: type[HEServiceError],
) -> None:
    """What makes the client stop is public: the server that changed the answer learns nothing from it."""
    sent, outcome = trace(server, keystore, tiny_images[:3], change)
    assert type(outcome) is error
    assert shape(sent) == shape(good)[: len(sent)]
    assert sum(step.path.endswith("/infer") for step in sent if isinstance(step, Call)) == 1


def test_the_trace_would_show_a_retry(good: list[Step]) -> None:
    assert shape([*good, good[-1]]) != shape(good)


def test_only_published_kinds_are_sent(good: list[Step], keystore: Keystore) -> None:
    """Every binary body is a container of a kind that the table of published rows covers."""
    kinds = set()
    for step in good:
        if isinstance(step, Call) and step.content:
            split = int(step.headers[HEADER_LENGTH]) + 4
            kinds.add(container.read_header(step.content[split:]).kind)
    kinds.add(container.read_header(keystore.open(TOY).evaluation_keys.read_bytes()).kind)
    assert kinds == {Kind.CKKS_CIPHERTEXT, Kind.EVALUATION_KEYS}
