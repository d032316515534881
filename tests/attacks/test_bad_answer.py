"""A hostile or broken server: whatever it answers, the client raises a typed error and sends nothing more."""

import json
import struct
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.server_process import ServerProcess
from client import Keystore
from client.protocol import HEADER_LENGTH, Call
from client.session import Session
from he_layers.crypto import container, errors, params
from he_layers.crypto.container import HEADER_BYTES, Kind
from he_layers.crypto.errors import HEServiceError

TOY = params.get("TOY_N128")
Spoil = Callable[[dict[str, object], bytes, str], tuple[dict[str, object], bytes]]


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
            repack(Kind.PACKED_ANSWER, TOY.id, lambda p: bytes(len(p))), errors.NotConformantError, id="zeros"
        ),
        pytest.param(repack(Kind.PACKED_ANSWER, TOY.id, lambda p: p[:-1]), errors.WrongLengthError, id="shorter"),
    ],
)
def test_a_wrong_answer(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    spoil: Spoil,
    error: type[HEServiceError],
) -> None:
    session = Session("tiny", keystore, allow_toy_parameters=True, show_progress=False)
    steps = session.predict(tiny_images[:2])
    step = next(steps)
    with httpx.Client(base_url=server.url, timeout=60) as http, pytest.raises(error) as raised:
        while True:
            assert isinstance(step, Call)
            response = http.request(step.method, step.path, content=step.content, headers=dict(step.headers))
            if step.path.endswith("/infer"):
                response = spoilt(response, spoil, keystore.open(TOY).key_id)
            step = steps.send(response)
    assert type(raised.value) is error
    with pytest.raises(StopIteration):
        next(steps)


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
