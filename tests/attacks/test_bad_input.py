"""Hostile or mistaken requests: a stable code on both sides, the server alive, the next request served."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client._wire import error_of
from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.protocol import container, tensors
from ciphershift.protocol.container import HEADER_BYTES, Kind
from ciphershift.protocol.tensors import HEADER_LENGTH

TOY = params.get("TOY_N128")


@pytest.fixture(scope="module")
def good(keystore: Keystore) -> bytes:
    """One well-formed encrypted image."""
    pair = keystore.open(TOY)
    return ckks.encrypt(pair.client_keys, pair.key_id, np.full(64, 0.01)).to_bytes()


def send(
    server: ServerProcess, image: bytes, key_id: str, shape: str = "1x8x8", path: str = "infer", **tensor: Any
) -> httpx.Response:
    """Sends one image in a well-formed request, except for what is asked to be different."""
    data = tensors.join_elements([image])
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}} | tensor
    header = {"parameters": {"key_id": key_id, "image_shape": shape}, "inputs": [given]}
    content, headers = tensors.join_body(header, data)
    return httpx.post(f"{server.url}/v2/models/tiny/{path}", content=content, headers=headers, timeout=60)


def assert_refused(answer: httpx.Response, error: type[CiphershiftError]) -> None:
    """The server says the code, and the client makes the same type of it."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["code"], answer.status_code) == (error.code, error.http_status)
    assert type(error_of(answer)) is error


def repacked(good: bytes, kind: Kind, params_id: str, key_id: str) -> bytes:
    return container.pack(kind, params_id, key_id, good[HEADER_BYTES:])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(lambda good, key: b"", errors.BadMagicError, id="nothing"),
        pytest.param(lambda good, key: b"\0" * len(good), errors.BadMagicError, id="zeros"),
        pytest.param(lambda good, key: good[:60], errors.MalformedError, id="truncated in the header"),
        pytest.param(lambda good, key: good[:-1], errors.MalformedError, id="truncated"),
        pytest.param(lambda good, key: good + b"\0", errors.TooLargeError, id="one byte more"),
        pytest.param(lambda good, key: good * 1000, errors.TooLargeError, id="oversized"),
        pytest.param(
            lambda good, key: repacked(good, Kind.PACKED_ANSWER, TOY.id, key), errors.WrongKindError, id="wrong kind"
        ),
        pytest.param(
            lambda good, key: repacked(good, Kind.CLIENT_KEYS, TOY.id, key),
            errors.SecretKeyOnServerError,
            id="secret keys",
        ),
        pytest.param(
            lambda good, key: repacked(good, Kind.CKKS_CIPHERTEXT, "77" * 32, key),
            errors.WrongParamsError,
            id="wrong parameter id",
        ),
        pytest.param(
            lambda good, key: repacked(good, Kind.CKKS_CIPHERTEXT, TOY.id, "77" * 32),
            errors.WrongKeyError,
            id="another key",
        ),
        pytest.param(
            lambda good, key: container.pack(Kind.CKKS_CIPHERTEXT, TOY.id, key, good[HEADER_BYTES:-1]),
            errors.WrongLengthError,
            id="shorter payload",
        ),
        pytest.param(
            lambda good, key: good[:-1] + bytes([good[-1] ^ 1]), errors.DigestMismatchError, id="a flipped bit"
        ),
        pytest.param(
            lambda good, key: container.pack(
                Kind.CKKS_CIPHERTEXT, TOY.id, key, good[HEADER_BYTES:-100] + b"\xff" * 100
            ),
            errors.NotConformantError,
            id="residues beyond the modulus",
        ),
        pytest.param(
            lambda good, key: container.pack(Kind.CKKS_CIPHERTEXT, TOY.id, key, bytes(len(good) - HEADER_BYTES)),
            errors.NotConformantError,
            id="no encryption at all",
        ),
    ],
)
def test_a_wrong_ciphertext(
    server: ServerProcess,
    client: Client,
    good: bytes,
    tiny_images: NDArray[np.uint8],
    spoil: Callable[[bytes, str], bytes],
    error: type[CiphershiftError],
) -> None:
    key_id = client.prepare()
    assert_refused(send(server, spoil(good, key_id), key_id), error)
    assert client.predict(tiny_images[:1]).shape == (1, 3)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.CLIENT_KEYS, errors.SecretKeyOnServerError),
        (Kind.LOCKED_CLIENT_KEYS, errors.SecretKeyOnServerError),
        (Kind.EVALUATION_KEYS, errors.WrongKindError),
        (Kind.PACKED_ANSWER, errors.WrongKindError),
        (Kind.PRODUCT_CIPHERTEXT, errors.WrongKindError),
    ],
)
def test_no_job_is_made_of_what_is_no_image(
    server: ServerProcess, client: Client, good: bytes, kind: Kind, error: type[CiphershiftError]
) -> None:
    """The header is enough to refuse it, so that secret keys are never stored as images of a job."""
    key_id = client.prepare()
    before = httpx.get(f"{server.url}/v2/jobs").json()
    assert_refused(send(server, repacked(good, kind, TOY.id, key_id), key_id, path="jobs"), error)
    assert httpx.get(f"{server.url}/v2/jobs").json() == before


def test_an_unknown_key(server: ServerProcess, client: Client, good: bytes, tiny_images: NDArray[np.uint8]) -> None:
    assert_refused(send(server, good, "77" * 32), errors.UnknownKeyError)
    assert client.predict(tiny_images[:1]).shape == (1, 3)


@pytest.mark.parametrize(
    "change", [{"shape": "1x28x28"}, {"shape": "3x8x8"}], ids=["another size", "another number of channels"]
)
def test_an_image_of_another_shape(
    server: ServerProcess, client: Client, good: bytes, tiny_images: NDArray[np.uint8], change: dict[str, str]
) -> None:
    assert_refused(send(server, good, client.prepare(), **change), errors.BadShapeError)
    with pytest.raises(errors.BadShapeError):
        client.predict(np.zeros((28, 28)))
    assert client.predict(tiny_images[:1]).shape == (1, 3)


def test_a_ciphertext_of_another_image_size(
    server: ServerProcess, client: Client, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    pair = keystore.open(TOY)
    client.prepare()
    larger = ckks.encrypt(pair.client_keys, pair.key_id, np.zeros(65)).to_bytes()
    assert_refused(send(server, larger, pair.key_id), errors.TooLargeError)
    assert client.predict(tiny_images[:1]).shape == (1, 3)


def test_more_images_than_a_request_may_have(server: ServerProcess, client: Client, good: bytes) -> None:
    many = [good] * 65  # the shared server takes 64
    content, headers = tensors.build_request(many, key_id=client.prepare(), image_shape=(1, 8, 8))
    answer = httpx.post(f"{server.url}/v2/models/tiny/infer", content=content, headers=headers)
    assert_refused(answer, errors.BadShapeError)


def test_an_endless_body_is_cut_off(server: ServerProcess, client: Client, tiny_images: NDArray[np.uint8]) -> None:
    answer = httpx.post(f"{server.url}/v2/models/tiny/infer", content=b"\0" * (4 << 20), headers={HEADER_LENGTH: "10"})
    assert_refused(answer, errors.TooLargeError)
    assert client.predict(tiny_images[:1]).shape == (1, 3)
