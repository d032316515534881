"""Shared by all tests: a tiny network under the TOY parameters, a real server process that serves it, a client, and a PostgreSQL."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program

TINY = "tiny"


@pytest.fixture(scope="session")
def tiny_program() -> Program:
    """A convolution, a max-pool, a ReLU and a dense layer on 8 x 8 pixels: 4 x (27 + 9) = 144 look-ups."""
    rng = np.random.default_rng(0)
    conv = rng.choice(np.array([-2, -1, 0, 1, 2], dtype=np.int8), (4, 1, 3, 3))
    dense = rng.choice(np.array([-2, -1, 0, 1, 2], dtype=np.int8), (3, 36))
    return Program(
        name=TINY,
        version="1",
        params="TOY_N128",
        input=InputSpec(shape=(1, 8, 8), levels=15, delta=1 / 256),
        layers=(
            Conv2d(name="conv", weight=conv, stride=(1, 1), padding=(0, 0)),
            MaxPool2d(name="pool", kernel=(2, 2), stride=(2, 2)),
            ReLU(
                name="relu",
                bias=np.zeros(4, dtype=np.int32),
                multiplier=np.full(4, 0.2),
                levels=15,
                delta_out=1 / 512,
            ),
            Flatten(name="flatten"),
            Linear(name="dense", weight=dense),
        ),
        output=OutputSpec(classes=("a", "b", "c"), scale=1.0),
    )


@pytest.fixture(scope="session")
def tiny_images() -> NDArray[np.uint8]:
    """Four images of noise, [4, 1, 8, 8]."""
    return np.random.default_rng(1).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="session")
def zoo(tiny_program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the tiny network."""
    folder = tmp_path_factory.mktemp("zoo")
    tiny_program.save(folder / TINY)
    return folder


@pytest.fixture(scope="session")
def server(zoo: Path) -> Iterator[ServerProcess]:
    """A server process that every test may use, and that every test must leave alive."""
    with running_server(models=zoo, allow_toy_parameters=True, max_batch=64, engine="local://?threads=2") as process:
        yield process


@pytest.fixture(scope="session")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Keystore:
    """One set of keys for all tests."""
    return Keystore(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def client(server: ServerProcess, keystore: Keystore) -> Iterator[Client]:
    """A client of the shared server."""
    with Client(server.url, model=TINY, keystore=keystore, allow_toy_parameters=True) as client:
        yield client


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
