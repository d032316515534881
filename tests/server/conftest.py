"""For tests of the service: requests as bytes, and a real PostgreSQL."""

import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from client import Keystore
from he_layers.crypto import ckks, params

TOY = params.get("TOY_N128")


@dataclass(frozen=True)
class Body:
    """The body of an inference request, and its headers."""

    content: bytes
    headers: dict[str, str]


@pytest.fixture(scope="session")
def make_body(keystore: Keystore) -> Callable[[int], Body]:
    """Makes a request of so many encrypted images for the tiny network."""
    pair = keystore.open(TOY)
    image = ckks.encrypt(pair.client_keys, pair.key_id, np.full(64, 0.01)).to_bytes()

    def make(images: int = 1, **parameters: str) -> Body:
        data = (struct.pack("<I", len(image)) + image) * images
        tensor = {
            "name": "image",
            "datatype": "BYTES",
            "shape": [images],
            "parameters": {"binary_data_size": len(data)},
        }
        given = {"key_id": pair.key_id, "image_shape": "1x8x8", **parameters}
        text = json.dumps({"id": uuid.uuid4().hex, "parameters": given, "inputs": [tensor]}).encode()
        return Body(text + data, {"Inference-Header-Content-Length": str(len(text))})

    return make


@pytest.fixture(scope="session")
def bundle(keystore: Keystore) -> tuple[str, bytes]:
    """A bundle of evaluation keys with its id."""
    pair = keystore.open(TOY)
    return pair.key_id, pair.evaluation_keys.read_bytes()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A private PostgreSQL on a free port of the loopback address; makes a new database and returns its URL."""
    binaries = _postgres_binaries()
    if binaries is None:
        message = "PostgreSQL is not installed: apt-get install postgresql (.ci/run does so as root)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    # It refuses to run as root; its files must be its user's.
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = tempfile.mkdtemp(prefix="ciphershift-postgres-")
    if os.getuid() == 0:
        shutil.chown(folder, user)

    def call(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = f"{folder}/data"
    call(f"{binaries}/initdb", "-D", data, "-U", "tester", "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    log = f"{folder}/log"
    call("/bin/sh", "-c", f"{binaries}/pg_ctl -D {data} -l {log} -o '{options}' -w start >/dev/null 2>&1")

    def new_database() -> str:
        name = f"d{uuid.uuid4().hex}"
        call(f"{binaries}/createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "tester", name)
        return f"postgresql://tester@127.0.0.1:{port}/{name}"

    try:
        yield new_database
    finally:
        call(f"{binaries}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def _postgres_binaries() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    return max(found) if found else Path(on_path).resolve().parent if on_path else None
