"""Whole networks on the device `cpu`: images side by side, the noise of the simulation, both keys at once, typed errors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, WrongParamsError
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, ciphertext_type
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.gpu import evaluate as on_device
from ciphershift.he_layers.gpu.keys import DeviceKeys
from ciphershift.he_layers.layers import Add, Dense, Flatten, Linear, MaxPool2d, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from tests.support import other_inputs

TOY = params.get("TOY_N128")
CPU = torch.device("cpu")
KEY_ID = "00" * 32


@pytest.fixture(scope="module")
def client_keys() -> ClientKeys:
    return ClientKeys.generate(TOY)


@pytest.fixture(scope="module")
def device_keys(client_keys: ClientKeys) -> DeviceKeys:
    return DeviceKeys.load(client_keys.evaluation_keys(2).expand(2), CPU)


def encrypt(keys: ClientKeys, program: Program, images: NDArray[np.uint8]) -> list[list[CkksCiphertext]]:
    levels = program.input.integers(images).reshape(len(images), -1)
    return [[ckks.encrypt(keys, KEY_ID, row * program.input.delta)] for row in levels]


def last(progress: Sequence[evaluate.Progress], keys: ClientKeys, program: Program) -> NDArray[np.float64]:
    assert all(not step.answers for step in progress[:-1])
    return np.stack([program.logits(ckks.decrypt(keys, answer)) for answer in progress[-1].answers])


def test_images_side_by_side_have_the_simulated_logits(
    client_keys: ClientKeys, device_keys: DeviceKeys, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    encrypted = encrypt(client_keys, tiny_program, tiny_images)
    progress = list(on_device.run(tiny_program, device_keys, encrypted))
    logits = last(progress, client_keys, tiny_program)
    rng = np.random.default_rng(2)
    runs = np.stack([simulate.run(tiny_program, TOY, tiny_images, rng) for _ in range(50)])
    assert np.abs((logits - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5
    assert [step.layer for step in progress] == ["relu", "flatten", "dense"]
    assert progress[-1].lookups_done == progress[-1].lookups_total == tiny_program.lookups


def test_slices_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch,
    client_keys: ClientKeys,
    device_keys: DeviceKeys,
    tiny_program: Program,
    tiny_images: NDArray[np.uint8],
) -> None:
    monkeypatch.setattr(on_device, "rows_together", lambda device: 64)
    progress = list(on_device.run(tiny_program, device_keys, encrypt(client_keys, tiny_program, tiny_images[:2])))
    assert [step.layer for step in progress] == ["relu"] * 4 + ["flatten", "dense"]
    rng = np.random.default_rng(2)
    runs = np.stack([simulate.run(tiny_program, TOY, tiny_images[:2], rng) for _ in range(50)])
    assert np.abs((last(progress, client_keys, tiny_program) - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5


def test_values_under_both_keys_are_added(client_keys: ClientKeys, device_keys: DeviceKeys) -> None:
    """A residual connection from the image itself: the sum lies under the CKKS secret and the big key."""
    relu: dict[str, Any] = {
        "bias": np.zeros(1, dtype=np.int32),
        "multiplier": np.ones(1),
        "levels": 15,
        "delta_out": 1 / 64,
    }
    program = Program(
        name="residual",
        version="1",
        params=TOY.name,
        input=InputSpec(shape=(1, 4, 4), levels=15, delta=1 / 64),
        layers=(
            ReLU(name="first", **relu),
            Add(name="sum", terms=2, inputs=("image", "first")),
            MaxPool2d(name="pool", kernel=(2, 2), stride=(2, 2)),
            ReLU(name="second", **relu),
            Flatten(name="flatten"),
            Linear(name="dense", weight=np.eye(2, 4, dtype=np.int8)),
        ),
        output=OutputSpec(classes=("a", "b"), scale=1.0),
    )
    images = np.full((1, 1, 4, 4), 80, dtype=np.uint8)
    (step, *_) = reversed(list(on_device.run(program, device_keys, encrypt(client_keys, program, images))))
    runs = np.stack([simulate.run(program, TOY, images, np.random.default_rng(i)) for i in range(50)])
    logits = last([step], client_keys, program)
    assert np.abs((logits - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5


@pytest.mark.parametrize("refinement", [64, None])
@pytest.mark.parametrize("engine", ["kernel", "device"])
def test_weighted_sums_without_look_ups_are_those_of_the_plain_network(
    client_keys: ClientKeys, device_keys: DeviceKeys, engine: str, refinement: int | None
) -> None:
    """Of two rows, with biases of a size that would be missed."""
    program = replace(other_inputs.scores(), params=TOY.name)
    program = replace(program, output=replace(program.output, refinement=refinement))
    dense = program.layers[0]
    assert isinstance(dense, Dense)
    program = replace(program, layers=(replace(dense, bias=np.array([900, -400], dtype=np.int32)),))
    rows = np.array([[0, 3, 9, 15], [15, 1, 0, 2]], dtype=np.uint8)
    levels = program.input.integers(rows) * program.input.delta
    images = [[ckks.encrypt(client_keys, KEY_ID, row, ciphertext_type(program.lookups))] for row in levels]
    if engine == "device":
        (step,) = on_device.run(program, device_keys, images)
        found = last([step], client_keys, program)
    else:
        keys = client_keys.evaluation_keys(2).expand(2)
        found = np.concatenate(
            [last(list(evaluate.run(program, keys, [image])), client_keys, program) for image in images]
        )
    (logits,) = noise_budget.of_program(program, TOY)
    errors = np.abs(found - simulate.plain(program, rows) * program.output.scales)
    assert errors.max() < 6 * logits.std_dev * program.turns_to_logits


def test_what_does_not_fit_is_a_typed_error(
    client_keys: ClientKeys, device_keys: DeviceKeys, tiny_program: Program
) -> None:
    short = ckks.encrypt(client_keys, KEY_ID, np.zeros(63))
    with pytest.raises(BadShapeError, match="63 values"):
        next(on_device.run(tiny_program, device_keys, [[short]]))
    other = ckks.encrypt(ClientKeys.generate(params.get("TOY_EXACT_N512")), KEY_ID, np.zeros(64))
    with pytest.raises(WrongParamsError):
        next(on_device.run(tiny_program, device_keys, [[other]]))


def test_a_card_takes_as_many_images_as_its_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tiny_program: Program
) -> None:
    largest = 4 * 6 * 6  # the convolution's sums
    for free, rows in ((80 << 30, on_device.MOST_ROWS), (8 << 30, 16384), (0, on_device.CPU_ROWS)):
        monkeypatch.setattr(on_device, "free_bytes", lambda device, free=free: free)
        assert on_device.images_together(tiny_program, torch.device("cuda")) == rows // largest
    assert on_device.images_together(tiny_program, CPU) == 1


def test_keys_of_a_set_whose_look_ups_share_masks_are_refused() -> None:
    server = ClientKeys.generate(params.get("TOY_N128_SHARED2")).evaluation_keys().expand()
    with pytest.raises(WrongParamsError, match="look-ups of TOY_N128_SHARED2 share masks"):
        DeviceKeys.load(server, CPU)
