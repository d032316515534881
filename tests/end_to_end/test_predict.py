"""A client and a real server process, bytes between them."""

import asyncio

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import AsyncClient, Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program

REPEATS = 50


@pytest.fixture(scope="module")
def expected(tiny_program: Program, tiny_images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the simulated logits, [4, 3] each."""
    toy = params.get(tiny_program.params)
    rng = np.random.default_rng(2)
    runs = np.stack([simulate.run(tiny_program, toy, tiny_images, rng) for _ in range(REPEATS)])
    return runs.mean(axis=0), runs.std(axis=0)


def assert_as_simulated(logits: NDArray[np.float64], expected: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    mean, std = expected
    assert logits.shape == mean.shape
    assert np.abs((logits - mean) / std).max() < 5.0


def test_encrypted_logits_are_the_simulated_ones(
    client: Client, tiny_images: NDArray[np.uint8], expected: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> None:
    assert_as_simulated(client.predict(tiny_images), expected)
    assert client.timings.server > 0
    assert client.timings.total >= client.timings.server


def test_async_client_does_the_same(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    expected: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    async def predict() -> NDArray[np.float64]:
        async with AsyncClient(server.url, keystore=keystore, allow_toy_parameters=True) as client:
            return await client.predict(tiny_images)

    assert_as_simulated(asyncio.run(predict()), expected)


def test_floats_and_bytes_give_the_same_prediction(client: Client, tiny_images: NDArray[np.uint8]) -> None:
    one = client.predict(tiny_images[0, 0])
    other = client.predict(tiny_images[0] / 255.0)
    assert one.shape == other.shape == (1, 3)
    assert np.corrcoef(one[0], other[0])[0, 1] > 0.9


def test_two_answers_to_the_same_image_differ(client: Client, tiny_images: NDArray[np.uint8]) -> None:
    assert not np.array_equal(client.predict(tiny_images[:1]), client.predict(tiny_images[:1]))


def test_traffic_is_what_the_profile_says(client: Client, tiny_images: NDArray[np.uint8]) -> None:
    profile = client.profile()
    client.predict(tiny_images[:1])
    assert 0 < client.traffic.sent - profile.upload_bytes < 1024  # the rest is the protocol's JSON header
    assert 0 < client.traffic.received - profile.download_bytes < 1024


def test_keys_survive_a_restart_of_the_server(
    zoo: object, keystore: Keystore, tiny_images: NDArray[np.uint8], tmp_path: object
) -> None:
    settings = {"models": zoo, "allow_toy_parameters": True, "storage": tmp_path}
    with running_server(**settings) as first, Client(first.url, keystore=keystore, allow_toy_parameters=True) as client:
        key_id = client.prepare()
    with (
        running_server(**settings) as second,
        Client(second.url, keystore=keystore, allow_toy_parameters=True) as client,
    ):
        assert httpx.head(f"{second.url}/v2/keys/{key_id}").status_code == 200
        assert client.predict(tiny_images[:1]).shape == (1, 3)
