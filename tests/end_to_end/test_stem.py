"""A model with a public part, served: fetched once, checked, computed by the client, and only its output is encrypted."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import numpy as np
import pytest

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.protocol import scaling
from tests.support import stems

IMAGES = np.random.default_rng(4).integers(0, 256, (2, *stems.RAW), dtype=np.uint8)


@pytest.fixture(scope="module")
def program(tiny_program: Program) -> Program:
    return replace(tiny_program, name="with-stem", stem=stems.stem())


@pytest.fixture(scope="module")
def serving(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("stems")
    program.save(folder / program.name)
    with running_server(models=folder, allow_toy_parameters=True, engine="local://?threads=1") as process:
        yield process


@pytest.fixture
def client(serving: ServerProcess, keystore: Keystore) -> Iterator[Client]:
    with Client(serving.url, keystore=keystore, allow_toy_parameters=True) as client:
        yield client


def test_the_answer_is_that_of_both_parts(client: Client, program: Program, keystore: Keystore) -> None:
    logits = client.predict(IMAGES)
    expected = simulate.plain(program, IMAGES) * program.output.scale
    noise = np.stack(
        [simulate.run(program, client.profile().params, IMAGES, np.random.default_rng(i)) for i in range(20)]
    )
    assert np.abs(logits - expected).max() < 8 * noise.std(axis=0).max()
    assert np.abs(expected - expected.mean()).max() > 8 * noise.std(axis=0).max()  # the test tells answers apart
    job = client.submit(IMAGES[:1])
    assert np.abs(job.result() - expected[:1]).max() < 8 * noise.std(axis=0).max()
    kept = keystore.folder / "stems"
    assert [path.name for path in kept.iterdir()] == [f"{stems.stem().sha256}.onnx"]
    with pytest.raises(errors.BadShapeError, match=r"takes \[n, 1, 16, 16\]"):
        client.predict(np.zeros((1, 8, 8), dtype=np.uint8))


def test_the_profile_says_what_is_public(client: Client, serving: ServerProcess) -> None:
    profile = client.profile()
    assert profile.sample_shape == stems.RAW
    assert profile.input_shape == stems.SHAPE
    assert profile.stem is not None
    assert profile.stem.public == "features.1"
    assert profile.stem.meaning.startswith("Whoever may use this model can fetch this part")
    answer = httpx.get(f"{serving.url}/v2/models/with-stem/stem")
    assert answer.content == stems.stem().onnx
    assert answer.headers["ETag"] == f'"{profile.stem.sha256}"'


def test_a_damaged_copy_is_fetched_again(client: Client, serving: ServerProcess, keystore: Keystore) -> None:
    client.predict(IMAGES[:1])
    (kept,) = (keystore.folder / "stems").iterdir()
    kept.write_bytes(b"something else")
    with Client(serving.url, keystore=keystore, allow_toy_parameters=True) as again:
        again.predict(IMAGES[:1])
    assert kept.read_bytes() == stems.stem().onnx


def test_a_model_without_a_public_part_has_none_to_fetch(server: ServerProcess) -> None:
    answer = httpx.get(f"{server.url}/v2/models/tiny/stem")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert httpx.get(f"{server.url}/v2/models/tiny/profile").json()["stem"] is None


def test_what_is_encrypted_is_the_stems_output(program: Program) -> None:
    unit = stems.stem().unit(IMAGES / 255)
    assert np.array_equal(program.integers(IMAGES), scaling.to_integers(unit, program.input.levels))
