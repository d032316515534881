"""Shared by all tests: a tiny network under the TOY parameters, a real server process that serves it, and a client."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.server_process import ServerProcess, running_server
from client import Client, Keystore
from he_layers.layers import Conv, Flatten, Linear, MaxPool, Relu
from he_layers.program import InputSpec, OutputSpec, Program

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
            Conv(name="conv", weight=conv, stride=(1, 1), padding=(0, 0)),
            MaxPool(name="pool", kernel=(2, 2), stride=(2, 2)),
            Relu(
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
    with running_server(models=zoo, allow_toy_parameters=True, engine="local://?threads=2") as process:
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
