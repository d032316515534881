"""Hostile bytes through the real HTTP server and its worker: the stable code, no process lost, no memory kept, the next request served."""

import json
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client.keystore import KeyPair
from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.protocol import container, tensors
from ciphershift.protocol.container import HEADER_BYTES, Kind
from ciphershift.protocol.tensors import HEADER_LENGTH
from tests.support.hostile import Tally, Target, cases

TOY = params.get("TOY_N128")
PIXELS = 64
PER_CHECK = 20
KEYS_PER_CHECK = 6
PER_FRAMING = 200
SECONDS_EACH = 20.0  # a hang, not a measurement
MEMORY_GROWTH = 256 << 20


@pytest.fixture(scope="module")
def pair(keystore: Keystore) -> KeyPair:
    return keystore.open(TOY)


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/v2", timeout=SECONDS_EACH) as http:
        yield http


@contextmanager
def unharmed(server: ServerProcess, client: Client, images: NDArray[np.uint8]) -> Iterator[None]:
    """Server and worker are the same processes before and after, have not grown, and serve the next good request."""
    assert client.predict(images[:1]).shape == (1, 3)
    family, memory = server.family(), server.peak_memory_bytes()
    yield
    assert client.predict(images[:1]).shape == (1, 3)
    assert server.family() == family
    assert memory is None or (server.peak_memory_bytes() or 0) - memory < MEMORY_GROWTH


def infer(http: httpx.Client, image: bytes, key: str, /, **changes: Any) -> httpx.Response:
    """Sends one image in a well-formed request, except for the members of its header that are changed or, by None, left out."""
    data = tensors.join_elements([image])
    members = {
        "key_id": key,
        "image_shape": "1x8x8",
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "binary_data_size": len(data),
    } | changes
    given = {name: value for name, value in members.items() if value is not None}
    header = {
        "parameters": {name: given[name] for name in ("key_id", "image_shape") if name in given},
        "inputs": [
            {name: given[name] for name in ("name", "datatype", "shape") if name in given}
            | {"parameters": {name: given[name] for name in ("binary_data_size",) if name in given}}
        ],
    }
    return post(http, json.dumps(header).encode(), data)


def post(http: httpx.Client, text: bytes, data: bytes, length: str | None = None) -> httpx.Response:
    return http.post("/models/tiny/infer", content=text + data, headers={HEADER_LENGTH: length or str(len(text))})


def refused(answer: httpx.Response) -> str | None:
    """The stable code of a refusal; None if the request was taken."""
    if answer.is_success:
        return None
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "application/problem+json"
    return str(answer.json()["code"])


def test_ciphertexts(
    server: ServerProcess,
    client: Client,
    http: httpx.Client,
    pair: KeyPair,
    tiny_images: NDArray[np.uint8],
    tally: Tally,
) -> None:
    good = ckks.encrypt(pair.client_keys, pair.key_id, np.full(PIXELS, 0.01)).to_bytes()
    target = Target(
        name="ciphertext",
        good=good,
        read=lambda data: CkksCiphertext.from_bytes(data, TOY, pair.key_id, PIXELS),
        fields=CkksCiphertext._fields(TOY, PIXELS),
        ranges={"c1": (TOY.input_ring.modulus, 1 << TOY.input_ring.modulus_bits)},
        masks=("c1",),
    )
    with unharmed(server, client, tiny_images):
        for case in cases(target, PER_CHECK, random.Random(3)):
            with tally.promptly(SECONDS_EACH):
                answer = infer(http, case.data, pair.key_id)
            tally.refuse("HTTP ciphertext", case.check, refused(answer), case.error)


# The store knows several parameter sets, so it says that it knows no such set; what the fields hold is checked when a key is used.
AT_UPLOAD: dict[str, type[CiphershiftError]] = {
    "params_id": errors.UnknownParamsError,
    "values of answer_key": errors.UnknownKeyError,
}
AT_USE = ("values of answer_key",)


def test_evaluation_keys(
    server: ServerProcess,
    client: Client,
    http: httpx.Client,
    pair: KeyPair,
    tiny_images: NDArray[np.uint8],
    tally: Tally,
) -> None:
    image = ckks.encrypt(pair.client_keys, pair.key_id, np.full(PIXELS, 0.01))
    target = Target(
        name="evaluation keys",
        good=pair.evaluation_keys.read_bytes(),
        read=lambda data: EvaluationKeys.from_bytes(data, TOY),
        fields=EvaluationKeys._fields(TOY),
        ranges={"answer_key": (TOY.answer_ring.modulus, 1 << TOY.answer_ring.modulus_bits)},
        names_itself=True,
    )
    with unharmed(server, client, tiny_images):
        for case in cases(target, KEYS_PER_CHECK, random.Random(4)):
            address = container.payload_id(case.data[HEADER_BYTES:])
            answer = http.put(f"/keys/{address}", content=case.data)
            if case.check in AT_USE:
                if answer.is_success:
                    under_it = container.pack(Kind.CKKS_CIPHERTEXT, TOY.id, address, image.to_bytes()[HEADER_BYTES:])
                    answer = infer(http, under_it, address)
                    assert http.head(f"/keys/{address}").status_code == 404, "a bundle that cannot be used is dropped"
            else:
                assert http.head(f"/keys/{address}").status_code == 404 or address == pair.key_id
            tally.refuse("HTTP evaluation keys", case.check, refused(answer), AT_UPLOAD.get(case.check, case.error))


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    10**30,
    "",
    "x" * 100,
    "\x00",
    "../" * 21 + "x",
    [],
    [1, 1],
    [[]],
    {},
    {"a": {}},
)
MEMBERS_PER_NAME = 40


@pytest.mark.parametrize("member", ["key_id", "image_shape", "name", "datatype", "shape", "binary_data_size"])
def test_members_of_the_header(
    server: ServerProcess,
    client: Client,
    http: httpx.Client,
    pair: KeyPair,
    tiny_images: NDArray[np.uint8],
    tally: Tally,
    member: str,
) -> None:
    good = ckks.encrypt(pair.client_keys, pair.key_id, np.full(PIXELS, 0.01)).to_bytes()
    with unharmed(server, client, tiny_images):
        rng = random.Random(member)
        for value in (
            *WRONG,
            *(rng.randbytes(rng.randrange(1, 60)).hex() for _ in range(MEMBERS_PER_NAME - len(WRONG))),
        ):
            code = refused(infer(http, good, pair.key_id, **{member: value}))
            assert code in (errors.MalformedError.code, errors.BadShapeError.code), (value, code)
            tally.refuse("HTTP request", "members of the header", code, CiphershiftError.by_code[code])


def framing(good: bytes, rng: random.Random) -> Iterator[tuple[str, bytes, bytes, str | None]]:
    """(what, JSON header, tensor bytes, header length): the same request, framed wrongly."""
    data = tensors.join_elements([good])
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"parameters": {"key_id": "ab" * 32, "image_shape": "1x8x8"}, "inputs": [tensor]}).encode()
    lengths = ["-1", "0", "x", "1e3", "9" * 40, str(len(text) - 1), str(len(text) + 1), "16385", "0x10"]
    for length in lengths + [str(rng.randrange(len(text) + 1, 1 << 70)) for _ in range(PER_FRAMING - len(lengths))]:
        yield "header length", text, data, length
    bombs = [
        b"[" * 16_000,
        b'{"a":' * 3000,
        b"9" * 16_000,
        b'"' + b"\\u0000" * 2000 + b'"',
        b"\xff\xfe" * 100,
        b"NaN",
        b"null",
    ]
    for bomb in bombs + [_damaged(text, rng) for _ in range(PER_FRAMING - len(bombs))]:
        yield "JSON of the header", bomb, data, None
    counts = [0, 1, 2**31, 2**32 - 1, len(good) + 1, len(good) - 1]
    for count in counts + [rng.randrange(len(good) + 1, 1 << 32) for _ in range(PER_FRAMING - len(counts))]:
        yield "element length", text, struct.pack("<I", count) + good, None
    for _ in range(PER_FRAMING):
        yield "size of the tensor", text, data[: rng.randrange(len(data))], None


def _damaged(text: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(text)
    for at in rng.sample(range(len(text)), 3):
        damaged[at] = rng.choice(b'{}[]",:\\\x00\xff')
    return bytes(damaged)


def test_framing(
    server: ServerProcess,
    client: Client,
    http: httpx.Client,
    pair: KeyPair,
    tiny_images: NDArray[np.uint8],
    tally: Tally,
) -> None:
    good = ckks.encrypt(pair.client_keys, pair.key_id, np.full(PIXELS, 0.01)).to_bytes()
    with unharmed(server, client, tiny_images):
        for what, text, data, length in framing(good, random.Random(5)):
            code = refused(post(http, text, data, length))
            assert code in CiphershiftError.by_code, (what, code)
            tally.refuse("HTTP request", what, code, CiphershiftError.by_code[code])
