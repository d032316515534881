"""Key upload: content-addressed, idempotent, and nothing wrong is ever kept."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore
from ciphershift.client.keystore import KeyPair
from ciphershift.he_layers.crypto import params
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Kind

TOY = params.get("TOY_N128")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def http(zoo: Path, storage: Path) -> Iterator[httpx.Client]:
    with (
        running_server(models=zoo, allow_toy_parameters=True, storage=storage) as server,
        httpx.Client(base_url=f"{server.url}/v2/keys/") as http,
    ):
        yield http


@pytest.fixture(scope="module")
def pair(keystore: Keystore) -> KeyPair:
    return keystore.open(TOY)


@pytest.fixture(scope="module")
def bundle(pair: KeyPair) -> bytes:
    return pair.evaluation_keys.read_bytes()


def stored(storage: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in storage.glob("keys/*/*"))


def test_a_bundle_can_be_put_described_and_deleted(
    http: httpx.Client, pair: KeyPair, bundle: bytes, storage: Path
) -> None:
    assert http.head(pair.key_id).status_code == 404
    for _ in range(2):
        answer = http.put(pair.key_id, content=bundle)
        assert answer.status_code == 201
    known = {"key_id": pair.key_id, "params_id": TOY.id, "bytes": len(bundle)}
    assert answer.json() == http.get(pair.key_id).json() == known
    assert http.head(pair.key_id).status_code == 200
    assert stored(storage) == [pair.key_id]
    assert http.delete(pair.key_id).status_code == 204
    assert http.get(pair.key_id).json()["code"] == "unknown_key"
    assert http.delete(pair.key_id).status_code == 404
    assert stored(storage) == []


def spoilt(bundle: bytes, secret: bytes, what: str) -> bytes:
    payload = bundle[HEADER_BYTES:]
    made = {
        "empty": b"",
        "other bytes": b"GIF89a" + bundle[6:],
        "cut in the header": bundle[:50],
        "cut in the payload": bundle[:-1],
        "one byte more": bundle + b"\0",
        "ten times as long": bundle * 10,
        "another version": bundle[:4] + b"\2\0" + bundle[6:],
        "a ciphertext": container.pack(Kind.CKKS_CIPHERTEXT, TOY.id, None, payload),
        "secret keys": secret,
        "secret keys of another set": container.pack(Kind.CLIENT_KEYS, "77" * 32, None, payload),
        "locked secret keys of another set": container.pack(Kind.LOCKED_CLIENT_KEYS, "77" * 32, None, payload),
        "other parameters": container.pack(Kind.EVALUATION_KEYS, "77" * 32, None, payload),
        "a false name": container.pack(Kind.EVALUATION_KEYS, TOY.id, "77" * 32, payload),
        "shorter payload": container.pack(Kind.EVALUATION_KEYS, TOY.id, None, payload[:-1]),
        "a flipped bit": bundle[:-1] + bytes([bundle[-1] ^ 1]),
        "another address": container.pack(Kind.EVALUATION_KEYS, TOY.id, None, payload[::-1]),
    }
    return made[what]


@pytest.mark.parametrize(
    ("what", "code", "status"),
    [
        ("empty", "bad_magic", 400),
        ("other bytes", "bad_magic", 400),
        ("cut in the header", "malformed", 400),
        ("cut in the payload", "malformed", 400),
        ("one byte more", "too_large", 413),
        ("ten times as long", "too_large", 413),
        ("another version", "unsupported_version", 400),
        ("a ciphertext", "wrong_kind", 400),
        ("secret keys", "secret_key_on_server", 400),
        ("secret keys of another set", "secret_key_on_server", 400),
        ("locked secret keys of another set", "secret_key_on_server", 400),
        ("other parameters", "unknown_params", 400),
        ("a false name", "wrong_key", 400),
        ("shorter payload", "wrong_length", 400),
        ("a flipped bit", "digest_mismatch", 400),
        ("another address", "wrong_key", 400),
    ],
)
def test_a_wrong_bundle_is_refused_and_not_kept(
    http: httpx.Client, pair: KeyPair, bundle: bytes, storage: Path, what: str, code: str, status: int
) -> None:
    secret = (pair.evaluation_keys.parent / "client.keys").read_bytes()
    answer = http.put(pair.key_id, content=spoilt(bundle, secret, what))
    assert (answer.json()["code"], answer.status_code) == (code, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert stored(storage) == []


@pytest.mark.parametrize(
    ("kind", "params_id", "code"),
    [
        (Kind.CLIENT_KEYS, TOY.id, "secret_key_on_server"),
        (Kind.CKKS_CIPHERTEXT, TOY.id, "wrong_kind"),
        (Kind.EVALUATION_KEYS, "77" * 32, "unknown_params"),
    ],
)
def test_a_wrong_bundle_is_refused_by_its_header_before_anything_is_written(
    http: httpx.Client, storage: Path, bundle: bytes, kind: Kind, params_id: str, code: str
) -> None:
    """The server answers although the rest has not arrived, then takes the rest as it comes, and keeps nothing."""
    head = container.pack(kind, params_id, None, bundle[HEADER_BYTES:])[:HEADER_BYTES]
    with socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=60) as connection:
        request = f"PUT /v2/keys/{'aa' * 32} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(bundle)}\r\n\r\n"
        connection.sendall(request.encode() + head[:50])
        connection.sendall(head[50:] + b"0")
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(65536)
        assert code.encode() in answer, answer
        assert list((storage / "spool").glob("*")) == []
        connection.sendall(bytes(len(bundle) - HEADER_BYTES - 1))
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in connection.recv(65536)


@pytest.mark.parametrize("key_id", ["x", "AA" * 32, "..%2f" * 3, "aa" * 33])
def test_an_address_must_be_a_digest(http: httpx.Client, key_id: str) -> None:
    answer = http.put(key_id, content=b"")
    assert answer.status_code in (400, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_least_recently_used_bundle_goes_when_the_disk_is_full(zoo: Path, bundle: bytes, tmp_path: Path) -> None:
    settings = {"models": zoo, "allow_toy_parameters": True, "storage": tmp_path}
    payloads = [bytes([i]) + bundle[HEADER_BYTES + 1 :] for i in range(3)]
    ids = [hashlib.sha256(payload).hexdigest() for payload in payloads]
    with running_server(**settings, storage_bytes=2 * len(bundle)) as server:
        for key_id, payload in zip(ids, payloads, strict=True):
            data = container.pack(Kind.EVALUATION_KEYS, TOY.id, None, payload)
            assert httpx.put(f"{server.url}/v2/keys/{key_id}", content=data).status_code == 201
    assert stored(tmp_path) == sorted(ids[1:])


def test_an_upload_that_breaks_off_leaves_nothing(server: ServerProcess, http: httpx.Client, pair: KeyPair) -> None:
    def broken() -> Iterator[bytes]:
        yield b"CSFT"
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        http.put(pair.key_id, content=broken())
    assert http.head(pair.key_id).status_code == 404
