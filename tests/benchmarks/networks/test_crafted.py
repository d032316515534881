"""The search for crafted inputs finds the wraps that a narrow window allows, and none where sums cannot leave it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.networks.crafted import judge, measure, worst_inputs
from ciphershift.errors import ProgramError
from ciphershift.he_layers.analysis.windows import safe_factor
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.layers import Conv2d, CReLU, Flatten, Linear, MaxPool2d, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.models.compiler import answers
from ciphershift.models.training.data import Split
from ciphershift.server.settings import Settings

SPREAD = 7.77
"""Standard deviation of mnist-tiny's logits over the images that the search began with."""
WORST = (("as_served", 1.0, 2.35), ("wider", 2.0, 0.47))
SIZE = params.get("TOY_N128").polynomial_size


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


@pytest.mark.parametrize(("made_for", "windows", "bound"), WORST)
def test_the_worst_inputs_that_were_found_stay_within_the_stated_bound(
    made_for: str, windows: float, bound: float
) -> None:
    """Those of mnist-tiny on the benchmarks page: difference of a logit in the logits' deviations, and the class."""
    served = Program.load(Settings().models / "mnist-tiny")
    with np.load(Path(__file__).with_name("crafted-mnist-tiny.npz")) as found:
        images = found[made_for]
    shown = answers.widened(served, windows) if windows > 1 else served
    judged = judge(shown, images, params.get(served.params).polynomial_size)
    assert judged.difference.max() <= bound * SPREAD
    assert np.array_equal(judged.encrypted, judged.plain)
    if windows == 1.0:
        assert judged.difference.min() > 2 * SPREAD, "what wraps must be seen"


@pytest.mark.parametrize("delta", [1 / 160, 1 / 400])
def test_windows_that_are_safe_hold_every_input_and_narrower_ones_do_not(delta: float) -> None:
    """Nine weights of one: the white image has the greatest sum that there is."""
    white = np.full((1, 1, 6, 6), 255, dtype=np.uint8)
    few = Linear(name="dense", weight=np.eye(3, 32, dtype=np.int8))
    network = replace(program(delta), layers=(*program(delta).layers[:-1], few))
    least = safe_factor(network)
    assert least == pytest.approx(2 * 9 * 15 * delta)
    relu = network.layers[1]
    assert isinstance(relu, ReLU)
    for factor, outside in ((1.01 * least, False), (0.99 * least, True)):
        scaled = replace(
            network,
            input=replace(network.input, delta=delta / factor),
            layers=(network.layers[0], replace(relu, delta_out=relu.delta_out / factor), *network.layers[2:]),
        )
        assert bool(judge(scaled, white, SIZE).beyond[0] >= 0) is outside


def test_windows_of_two_ramps_end_one_ramp_before_the_torus_does() -> None:
    """Sums from 0 to 135 units of a 400th turn, minus 60: ramps of 45 units; the farthest is 75 units from zero, and a ramp beyond it."""
    network = program(1 / 400)
    both = CReLU(
        name="both", bias=np.full(2, -60, np.int32), multiplier=np.full(2, 1 / 3), levels=15, delta_out=1 / 512
    )
    eye = Linear(name="dense", weight=np.eye(3, 64, dtype=np.int8))
    network = replace(network, layers=(network.layers[0], both, network.layers[2], eye))
    assert safe_factor(network) == pytest.approx(2 * (75 + 45) / 400)
    longest = replace(both, multiplier=np.full(2, 0.15))  # 100 units, a quarter of the torus
    white = np.full((1, 1, 6, 6), 255, dtype=np.uint8)
    for layer, bias, outside in (
        (both, -60, False),
        (both, 19, False),
        (both, 21, True),  # 135 + 20 + 45 = 200 units are half a turn
        (longest, -36, False),
        (longest, -34, True),
    ):
        layers = (network.layers[0], replace(layer, bias=np.full(2, bias, np.int32)), *network.layers[2:])
        assert bool(judge(replace(network, layers=layers), white, SIZE).beyond[0] >= 0) is outside


def test_safe_windows_hold_what_a_pool_compares_and_the_logits() -> None:
    """A pixel has up to 15 levels: two of them differ by 15/40 of a turn, which a quarter must hold; a logit has half a turn."""
    layers = (MaxPool2d(name="pool", kernel=(2, 2), stride=(2, 2)), Flatten(name="flat"))
    last = Linear(name="dense", weight=np.eye(2, 9, dtype=np.int8))
    network = Program(
        name="pool",
        version="1",
        params="TOY_N128",
        input=InputSpec(shape=(1, 6, 6), levels=15, delta=1 / 40),
        layers=(*layers, last),
        output=OutputSpec(classes=("a", "b"), scale=1.0),
    )
    assert safe_factor(network) == pytest.approx(15 / 40 / 0.25)
    four = replace(last, weight=4 * np.eye(2, 9, dtype=np.int8))
    assert safe_factor(replace(network, layers=(*layers, four))) == pytest.approx(4 * 15 / 40 / 0.5)


def test_no_windows_are_safe_where_there_are_none() -> None:
    served = Program.load(Settings().models / "mnist-exact")
    with pytest.raises(ProgramError, match="exact profile"):
        safe_factor(served)
    with pytest.raises(ProgramError, match="answer with logits"):
        safe_factor(answers.top_one(program(1 / 400)))


def test_a_search_gives_the_same_images_again(seeds: NDArray[np.uint8]) -> None:
    first, second = (worst_inputs(program(1 / 160), seeds, generations=3) for _ in range(2))
    assert first["crafted"] == second["crafted"]
