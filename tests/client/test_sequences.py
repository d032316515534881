"""Sequences of several lengths, asked through a real server, which is told none of them."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import AsyncClient, Client, Keystore, errors
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import tables
from ciphershift.client.cli import samples
from ciphershift.protocol.sequences import padded
from tests.support import other_inputs

LONGEST = 4
SERIES, CLASSES = other_inputs.SERIES, other_inputs.SERIES_CLASSES


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("zoo")
    replace(other_inputs.sequences(), params="TOY_N128").save(folder / "sequences")
    with running_server(models=folder, allow_toy_parameters=True, engine="local://?threads=1") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess, keystore: Keystore) -> Iterator[Client]:
    with Client(server.url, keystore=keystore, allow_toy_parameters=True) as client:
        yield client


def test_sequences_of_all_lengths_are_padded_and_look_alike(client: Client) -> None:
    assert client.profile().input_sequences
    assert client.predict(SERIES).argmax(axis=1).tolist() == CLASSES
    assert len({len(ciphertext) for ciphertext in client.traffic.ciphertexts}) == 1
    assert client.predict(SERIES[1]).argmax(axis=1).tolist() == CLASSES[1:2]
    assert client.predict(padded(SERIES, LONGEST)).argmax(axis=1).tolist() == CLASSES
    assert client.submit(SERIES[:2]).result().argmax(axis=1).tolist() == CLASSES[:2]


def test_the_client_for_coroutines_pads_too(server: ServerProcess, keystore: Keystore) -> None:
    async def ask() -> NDArray[np.float64]:
        async with AsyncClient(server.url, keystore=keystore, allow_toy_parameters=True) as client:
            logits: NDArray[np.float64] = await client.predict(SERIES)
            return logits

    assert asyncio.run(ask()).argmax(axis=1).tolist() == CLASSES


def test_a_sequence_that_is_too_long_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(errors.BadShapeError, match=r"sequence 1 .* 1 to 4 steps\].* cut longer"):
        client.predict([SERIES[0], np.zeros((2, LONGEST + 1))])


def test_a_file_is_a_sequence_with_a_row_for_each_step(client: Client, tmp_path: Path) -> None:
    for number, series in enumerate(SERIES):
        rows = [f"{age},x,{change}" for change, age in series.T]
        (tmp_path / f"{number}.csv").write_text("\n".join(["age,note,change", *rows]) + "\n")
    files = [tmp_path / f"{number}.csv" for number in range(len(SERIES))]
    names, values = samples.read(files, client.profile())
    assert names == list(map(str, files))
    assert all(np.array_equal(read, series) for read, series in zip(values, SERIES, strict=True))
    assert client.predict(values).argmax(axis=1).tolist() == CLASSES


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("a,b,c\n1,2,3\n", errors.BadShapeError, "has 3 columns .* takes 2"),
        ("a,a\n1,2\n", errors.BadShapeError, "has 1 columns"),
        ("0.5,2\n1,2\n", errors.MalformedError, "numbers in its first line"),
        ("a,b\n1,\n", errors.MalformedError, "line 2: b is '', which is no number"),
        ("a,b\n", errors.MalformedError, "no row"),
    ],
)
def test_without_names_the_columns_are_the_features(
    text: str, error: type[errors.CiphershiftError], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "sequence.csv"
    file.write_text("a,b\n1,2\n3,4\n5,6\n")
    assert tables.read_sequence(file, (), 2).tolist() == [[1, 3, 5], [2, 4, 6]]
    file.write_text(text)
    with pytest.raises(error, match=message):
        tables.read_sequence(file, (), 2)
