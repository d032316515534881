"""A hostile or broken server: whatever it answers, the client raises a typed error and sends nothing more."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore
from ciphershift.client._session import Session
from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto import params
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Kind
from tests.support.wire import WatchedTransport, answer, split_answer

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
    error: type[CiphershiftError],
) -> None:
    with pytest.raises(error) as raised:
        ask(server, keystore, tiny_images[:1], spoil)
    assert type(raised.value) is error


def ask(server: ServerProcess, keystore: Keystore, images: NDArray[np.uint8], spoil: Spoil) -> None:
    """Predicts, with every answer spoilt on its way; after an error nothing follows but a look at the profile."""
    key_id = keystore.open(TOY).key_id
    with closing(WatchedTransport(server.url, lambda response: spoilt(response, spoil, key_id))) as transport:
        try:
            transport.run(Session("tiny", keystore, allow_toy_parameters=True).predict(images, None))
        except errors.WrongAnswerError:
            assert transport.sent.pop().path == "/v2/models/tiny/profile"
            raise
        finally:
            assert transport.paths[-1].endswith("/result")


def spoilt(response: httpx.Response, spoil: Spoil, key_id: str) -> httpx.Response:
    text, (row,) = split_answer(response)
    header, data = spoil(json.loads(text), row, key_id)
    return answer(header, [data], response.request)


def test_a_server_cannot_talk_a_client_into_weak_parameters(server: ServerProcess, keystore: Keystore) -> None:
    with (
        closing(WatchedTransport(server.url)) as transport,
        pytest.raises(errors.InsecureParamsError),
    ):
        transport.run(Session("tiny", keystore, allow_toy_parameters=False).predict(np.zeros((8, 8)), None))
    assert transport.paths == ["/v2/models/tiny/profile"]


def test_a_client_that_refuses_block_keys_sends_nothing(keystore: Keystore, zoo: Path) -> None:
    settings = {"models": zoo, "allow_toy_parameters": True, "parameter_sets": "TOY_N128_BLOCK3"}
    with (
        running_server(**settings) as server,
        closing(WatchedTransport(server.url)) as transport,
        pytest.raises(errors.RefusedParamsError),
    ):
        session = Session("tiny", keystore, allow_toy_parameters=True, accept_block_keys=False)
        transport.run(session.predict(np.zeros((8, 8)), None))
    assert transport.paths == ["/v2/models/tiny/profile"]


def test_answers_to_two_requests_cannot_be_swapped(
    server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    kept: list[bytes] = []

    def first_answer_again(header: dict[str, object], data: bytes, _: str) -> tuple[dict[str, object], bytes]:
        kept.append(data)
        return header, kept[0]

    ask(server, keystore, tiny_images[:1], first_answer_again)
    with pytest.raises(errors.WrongAnswerError, match="request"):
        ask(server, keystore, tiny_images[1:2], first_answer_again)
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda a, b: [b, a], errors.WrongAnswerError, id="swapped"),
        pytest.param(lambda a, b: [a, a], errors.WrongAnswerError, id="one twice"),
        pytest.param(lambda a, b: [a], errors.MalformedError, id="one is missing"),
        pytest.param(lambda a, b: [a, b, b], errors.MalformedError, id="one too many"),
    ],
)
def test_the_answers_of_a_batch_keep_their_places(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    change: Callable[[bytes, bytes], list[bytes]],
    error: type[CiphershiftError],
) -> None:
    def rearranged(response: httpx.Response) -> httpx.Response:
        text, rows = split_answer(response)
        return answer(json.loads(text), change(*rows), response.request)

    with closing(WatchedTransport(server.url, rearranged)) as transport, pytest.raises(error):
        transport.run(Session("tiny", keystore, allow_toy_parameters=True).predict(tiny_images[:2], None))
