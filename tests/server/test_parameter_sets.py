"""Which parameter set a server evaluates a network under, and what a client says to it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from ciphershift.server.repository import Repository
from ciphershift.server.settings import ZOO, Settings

REPEATS = 200


def served(models: Path, **settings: Any) -> dict[str, str]:
    """The parameter set of each model."""
    repository = Repository(Settings(models=models, allow_toy_parameters=True, **settings))
    return {name: model.params.name for name, model in repository.items()}


def test_networks_of_the_zoo_run_under_block_keys_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    for name in ("mnist-tiny", "mnist-exact", "mnist-fast"):
        (tmp_path / name).symlink_to(ZOO / name)
    fast, exact = ("mnist-tiny", "mnist-fast"), "mnist-exact"
    assert served(tmp_path) == dict.fromkeys(fast, "FAST_N512_BLOCK3") | {exact: "EXACT_N2048_BLOCK3"}
    assert served(tmp_path, parameter_sets="own") == dict.fromkeys(fast, "FAST_N512_PAIRS") | {exact: "EXACT_N2048"}
    others = served(tmp_path, parameter_sets="EXACT_N2048_BLOCK3, FAST_N512_BLOCK4")
    assert others == dict.fromkeys(fast, "FAST_N512_BLOCK4") | {exact: "EXACT_N2048_BLOCK3"}


def test_a_set_with_more_noise_or_of_other_sizes_does_not_stand_in(
    zoo: Path, tiny_program: Program, tmp_path: Path
) -> None:
    assert served(zoo, parameter_sets="TOY_N128_BLOCK3,FAST_N512_BLOCK3") == {"tiny": "TOY_N128_BLOCK3"}
    assert served(zoo, parameter_sets="FAST_N512_BLOCK3,TOY_EXACT_N512") == {"tiny": "TOY_N128"}
    replace(tiny_program, params="TOY_N128_BLOCK3").save(tmp_path / "tiny")
    assert served(tmp_path, parameter_sets="TOY_N128") == {"tiny": "TOY_N128_BLOCK3"}


@pytest.fixture(scope="module")
def block_server(zoo: Path) -> Iterator[ServerProcess]:
    with running_server(models=zoo, allow_toy_parameters=True, parameter_sets="TOY_N128_SHARED2") as process:
        yield process


def test_encrypted_logits_under_block_keys_are_the_simulated_ones(
    block_server: ServerProcess, keystore: Keystore, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    """Look-ups of one image share masks, and those of two that are evaluated together."""
    blocks, rng = params.get("TOY_N128_SHARED2"), np.random.default_rng(2)
    tiny_images = tiny_images[:3]
    runs = np.stack([simulate.run(tiny_program, blocks, tiny_images, rng) for _ in range(REPEATS)])
    with Client(block_server.url, keystore=keystore, allow_toy_parameters=True) as client:
        assert client.profile().params is blocks
        logits = client.predict(tiny_images)
    assert np.abs((logits - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5.0


def test_a_request_without_images_is_refused(tiny_program: Program) -> None:
    server = ClientKeys.generate(params.get("TOY_N128")).evaluation_keys().expand()
    with pytest.raises(errors.BadShapeError, match="there is no image"):
        list(evaluate.run(tiny_program, server, []))


def test_a_device_of_torch_passes_over_sets_whose_look_ups_share_masks() -> None:
    named = "FAST_N512_BLOCK3_SHARED2, FAST_N512_BLOCK3"
    assert Settings(engine="torch://cpu", parameter_sets=named).stand_ins == ("FAST_N512_BLOCK3",)


def test_images_of_small_networks_share_a_turn() -> None:
    assert [Settings(max_batch=9).turn_images(lookups) for lookups in (0, 24, 1392, 2500, 2501)] == [9, 208, 3, 2, 1]
    assert Settings(engine="torch://cpu", max_batch=7).turn_images(6000) == 7
    assert Settings(images_per_turn=1).turn_images(24) == 1


def test_look_ups_share_masks_in_large_networks_and_in_others_where_the_operator_says_so(tmp_path: Path) -> None:
    """Nowhere more noise than under the pairs that they were made for; keys within what is promised of them."""
    for name in ("mnist-tiny", "mnist-she", "mnist-exact"):
        (tmp_path / name).symlink_to(ZOO / name)
    blocks, shared, exact = "FAST_N512_BLOCK3", "FAST_N512_BLOCK3_SHARED2", "EXACT_N2048_BLOCK3"
    assert served(tmp_path) == {"mnist-tiny": blocks, "mnist-she": shared, "mnist-exact": exact}
    assert served(tmp_path, engine="torch://cpu") == {"mnist-tiny": blocks, "mnist-she": blocks, "mnist-exact": exact}
    assert served(tmp_path, parameter_sets=shared) | {"mnist-exact": shared} == dict.fromkeys(served(tmp_path), shared)
    assert served(tmp_path, parameter_sets=blocks) | {"mnist-exact": blocks} == dict.fromkeys(served(tmp_path), blocks)
    assert EvaluationKeys.nbytes(params.get("FAST_N512_BLOCK3_SHARED2")) < 30_000_000


def test_a_client_can_refuse_block_keys(
    block_server: ServerProcess, server: ServerProcess, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    strict: dict[str, Any] = {"keystore": keystore, "allow_toy_parameters": True, "accept_block_keys": False}
    with (
        Client(block_server.url, **strict) as client,
        pytest.raises(errors.RefusedParamsError, match=r"blocks of 3 bits.*CIPHERSHIFT_PARAMETER_SETS=own"),
    ):
        client.predict(tiny_images)
    with Client(server.url, **strict) as client:
        assert client.predict(tiny_images[:1]).shape == (1, 3)
