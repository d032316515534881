"""The search for crafted inputs finds the wraps that a narrow window allows, and none where sums cannot leave it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.networks.crafted import measure, worst_inputs
from ciphershift.he_layers.layers import Conv2d, Flatten, Linear, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.models.training.data import Split


@pytest.fixture
def seeds() -> NDArray[np.uint8]:
    """Pale images: their sums are small."""
    return np.random.default_rng(1).integers(0, 60, (20, 1, 6, 6), dtype=np.uint8)


def program(delta: float) -> Program:
    """Sums of up to 9 * 15 * ``delta`` turns."""
    rng = np.random.default_rng(0)
    return Program(
        name="sums",
        version="1",
        params="TOY_N128",
        input=InputSpec(shape=(1, 6, 6), levels=15, delta=delta),
        layers=(
            Conv2d(name="conv", weight=np.ones((2, 1, 3, 3), dtype=np.int8)),
            ReLU(
                name="relu",
                bias=np.zeros(2, dtype=np.int32),
                multiplier=np.full(2, 1 / 3),
                levels=15,
                delta_out=1 / 512,
            ),
            Flatten(name="flatten"),
            Linear(name="dense", weight=rng.choice(np.array([-2, -1, 1, 2], dtype=np.int8), (3, 32))),
        ),
        output=OutputSpec(classes=("a", "b", "c"), scale=1.0),
    )


def test_a_sum_that_can_leave_its_window_is_found(seeds: NDArray[np.uint8]) -> None:
    found = worst_inputs(program(1 / 160), seeds, generations=15)
    assert found["ordinary"]["flips"] == 0
    assert found["crafted"]["beyond_turns"] > 0
    assert found["crafted"]["difference"] > 5 * found["ordinary"]["difference"]
    assert found["crafted"]["flips"] >= found["crafted"]["reproducible"] > 0


def test_where_no_sum_can_leave_its_window_nothing_is_found(seeds: NDArray[np.uint8]) -> None:
    found = worst_inputs(program(1 / 400), seeds, generations=15)
    assert found["crafted"]["beyond_turns"] < 0
    assert found["crafted"]["difference"] < 1
    assert found["crafted"]["reproducible"] == 0


def test_wider_windows_keep_the_sums_inside(seeds: NDArray[np.uint8]) -> None:
    test = Split(images=seeds, labels=np.zeros(len(seeds), dtype=np.int64))
    narrow, wide = (measure(program(1 / 160), test, generations=15, windows=windows) for windows in (1, 2.5))
    assert wide["crafted"]["beyond_turns"] < 0 < narrow["crafted"]["beyond_turns"]
    assert (narrow["windows"], wide["windows"], narrow["model"], wide["model"]) == (1, 2.5, "sums", "sums")
    assert wide["crafted"]["flips"] == 0 < narrow["crafted"]["flips"]


def test_a_search_gives_the_same_images_again(seeds: NDArray[np.uint8]) -> None:
    first, second = (worst_inputs(program(1 / 160), seeds, generations=3) for _ in range(2))
    assert first["crafted"] == second["crafted"]
