"""Secret coefficients are nowhere but with the client: not in requests, not on the server's disk, in its logs, or in its memory.

Searched is a window of every secret in every form that code of ours or of SEAL brings it into; that the search would find one is shown by
sending secrets in a request that does not end, and finding them in the server's memory and on its disk.
"""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore
from ciphershift.client._requests import Upload
from ciphershift.client._session import Session
from ciphershift.he_layers.crypto import params
from ciphershift.protocol.container import HEADER_BYTES
from tests.support.secrets import SECRETS, Needles, needles, search
from tests.support.wire import WatchedTransport

TOY = params.get("TOY_N128")


def on_disk(folder: Path, wanted: Needles) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return set().union(*(search(path.read_bytes(), wanted) for path in files))


def in_memory(pid: int, wanted: Needles) -> set[str]:
    """Searches all writable memory of a process: what a core image would hold of heap, stacks and data."""
    found: set[str] = set()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, mode, *_ = line.split()
            if not mode.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, ValueError):  # the kernel's own pages
                continue
            pages = np.frombuffer(data, np.uint64).reshape(-1, 512)
            found |= search(pages[pages.any(axis=1)].tobytes(), wanted)  # most pages were never touched
    return found


@contextmanager
def unfinished(server: ServerProcess, head: str, body: bytes) -> Iterator[None]:
    """A request whose body has begun and does not end."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"{head} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body) + 1}\r\n\r\n".encode() + body
        )
        httpx.get(f"{server.url}/v2/health/live")  # by its answer, the server has read what came before
        httpx.get(f"{server.url}/v2/health/live")
        yield


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Keystore:
    return Keystore(tmp_path_factory.mktemp("secret"))


@pytest.fixture(scope="module")
def wanted(keystore: Keystore) -> Needles:
    return needles(keystore.open(TOY).client_keys)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def served(
    zoo: Path, keystore: Keystore, storage: Path, tiny_images: NDArray[np.uint8]
) -> Iterator[tuple[ServerProcess, bytes]]:
    """A server that logs all it can and has answered two images, and all that the client sent it."""
    session = Session("tiny", keystore, allow_toy_parameters=True)
    with running_server(models=zoo, allow_toy_parameters=True, storage=storage, log_level="debug") as server:
        with closing(WatchedTransport(server.url)) as transport:
            assert transport.run(session.predict(tiny_images[:2], None)).shape == (2, 3)
        sent = bytearray()
        for call in transport.sent:
            content = b"".join(call.content.chunks()) if isinstance(call.content, Upload) else call.content
            sent += repr((call.method, call.path, dict(call.headers))).encode() + content
        yield server, bytes(sent)


def test_requests_hold_no_secret(served: tuple[ServerProcess, bytes], wanted: Needles) -> None:
    assert len(served[1]) > 600_000  # the keys are among them
    assert search(served[1], wanted) == set()


def test_disk_and_logs_hold_no_secret(served: tuple[ServerProcess, bytes], storage: Path, wanted: Needles) -> None:
    assert sum(path.stat().st_size for path in storage.rglob("*")) > 600_000
    assert on_disk(storage, wanted) == set()
    assert search(served[0].log.read_bytes(), wanted) == set()


def test_memory_of_server_and_worker_holds_no_secret(served: tuple[ServerProcess, bytes], wanted: Needles) -> None:
    family = served[0].family()
    assert len(family) >= 2
    for pid in family:
        assert in_memory(pid, wanted) == set()


def test_the_search_finds_secrets_that_were_sent(
    served: tuple[ServerProcess, bytes], storage: Path, keystore: Keystore, wanted: Needles
) -> None:
    """Run last: it brings secrets into the server."""
    server, _ = served
    planted = b"".join(wanted.values())
    with unfinished(server, f"PUT /v2/keys/{'77' * 32}", planted * 8):  # refused by its head
        assert on_disk(storage, wanted) == set()
    head = keystore.open(TOY).evaluation_keys.read_bytes()[:HEADER_BYTES]  # which says that evaluation keys follow
    with unfinished(server, f"PUT /v2/keys/{'77' * 32}", head + planted * 8):  # past the buffer of the file
        assert on_disk(storage, wanted) == set(wanted)
    with unfinished(server, "POST /v2/models/tiny/infer", planted):
        assert in_memory(server.pid, wanted) == set(wanted)


def test_the_key_file_is_where_the_secret_is(keystore: Keystore, wanted: Needles) -> None:
    assert on_disk(keystore.folder, wanted) == {f"{name}, packed as in the key file" for name in SECRETS}
