"""Recurrent layers of a Program: shared arrays, certificates, and errors over time, simulated and encrypted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import ProgramError
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.analysis import state_errors
from ciphershift.he_layers.crypto import ckks, lwe, params
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Add, CReLU, Gather, Layer, Linear, ReLU
from ciphershift.he_layers.layers.table import Table
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.he_layers.recurrence import Certificate, certificates

TOY = params.get("TOY_N128")
STEPS, FEATURES, UNITS, LEVELS = 12, 2, 4, 15
RNG = np.random.default_rng(5)
BY_INPUT = RNG.choice(np.array([-2, 0, 1, 2], dtype=np.int8), (UNITS, FEATURES))
BY_STATE = RNG.choice(np.array([-2, -1, 1, 2], dtype=np.int8), (UNITS, UNITS))


WEIGHTS = (0.8, 1.0, 1.0, 0.8)


def network(
    *,
    multiplier: float | NDArray[np.float64] = 0.2,
    recurrent: NDArray[np.int8] = BY_STATE,
    delta: float = 1 / 512,
    kind: type[ReLU | CReLU] = ReLU,
) -> Program:
    """h = clip(0.2 (W x + U h + 8)), twelve steps, and two logits of the last state."""
    layers: list[Layer] = []
    by_input = Linear(name="by_input", weight=BY_INPUT)
    by_state = Linear(name="by_state", weight=recurrent)
    table = kind(
        name="state",
        bias=np.full(UNITS, 8, dtype=np.int32),
        multiplier=np.full(UNITS, multiplier),
        levels=LEVELS,
        delta_out=delta,
    )
    for step in range(STEPS):
        index = np.arange(FEATURES, dtype=np.int32) + step * FEATURES
        layers.append(Gather(name=f"x{step}", shape=(FEATURES,), index=index, inputs=("image",)))
        layers.append(by_input if step == 0 else replace(by_input, name=f"by_input{step}").sharing(by_input))
        if step:
            again = by_state if step == 1 else replace(by_state, name=f"by_state{step}").sharing(by_state)
            before = "state" if step == 1 else f"state{step - 1}"
            layers.append(replace(again, inputs=(before,)))
            layers.append(Add(name=f"sum{step}", terms=2, inputs=(layers[-2].name, layers[-1].name)))
        layers.append(table if step == 0 else replace(table, name=f"state{step}").sharing(table))
    layers.append(Linear(name="logits", weight=recurrent[:2]))
    return Program(
        name="steps",
        version="1",
        params=TOY.name,
        input=InputSpec(shape=(STEPS, FEATURES), levels=LEVELS, delta=delta),
        layers=tuple(layers),
        output=OutputSpec(classes=("a", "b"), scale=1.0),
    )


@pytest.fixture(scope="module")
def program() -> Program:
    return network()


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (200, STEPS, FEATURES), dtype=np.uint8)


def test_the_certificate_is_the_norm_of_the_integers_and_bounds_every_sum(
    program: Program, images: NDArray[np.uint8]
) -> None:
    (certificate,) = certificates(program)
    norm = float(np.linalg.norm(0.2 * BY_STATE.astype(float), 2))
    assert certificate.layer == "by_state" and certificate.norm == pytest.approx(norm)
    longest = LEVELS / 0.2
    high = (np.maximum(BY_INPUT, 0).sum(1) + np.maximum(BY_STATE, 0).sum(1)) * LEVELS + 8
    low = (np.minimum(BY_INPUT, 0).astype(int).sum(1) + np.minimum(BY_STATE, 0).astype(int).sum(1)) * LEVELS + 8
    assert certificate.reach == pytest.approx(max((high - longest / 2).max(), (longest / 2 - low).max()) / 512)
    assert certificate.window == pytest.approx(0.5 - longest / 512 / 2)
    assert certificate.never_wraps
    greatest = 0.0
    walk = program.traverse(
        program.integers(images), lambda parts: np.concatenate(parts, axis=1), lambda stage, x: stage.layer.plain(x)
    )
    for stage, x in walk:
        if isinstance(stage.layer, Add):
            greatest = max(greatest, float(np.abs(x + 8 - longest / 2).max()) / 512)
    assert greatest <= certificate.reach


def test_a_program_stores_the_arrays_of_all_steps_once_and_states_its_certificate(
    program: Program, tmp_path: Path
) -> None:
    certified = replace(program, recurrent=certificates(program))
    certified.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.digest == certified.digest != program.digest
    assert loaded.recurrent == certified.recurrent
    from safetensors.numpy import load_file

    assert sum("weight" in name for name in load_file(tmp_path / "weights.safetensors")) == 3
    weights = {id(layer.weight) for layer in loaded.layers if isinstance(layer, Linear)}
    assert len(weights) == 3


def test_a_norm_that_the_weights_do_not_have_is_refused(program: Program) -> None:
    (certificate,) = certificates(program)
    with pytest.raises(ProgramError, match="export it again"):
        replace(program, recurrent=(replace(certificate, norm=0.5),))
    with pytest.raises(ProgramError, match="export it again"):
        replace(program, recurrent=(certificate, certificate))


def with_weights(program: Program, weights: tuple[float, ...] = WEIGHTS) -> Program:
    return replace(program, recurrent=certificates(program, {"by_state": weights}))


def in_other_units(seed: int) -> tuple[Program, tuple[float, ...]]:
    """A matrix of norm 0.9 whose states have levels of values from 1/8 to 1, and these values."""
    rng = np.random.default_rng(seed)
    values = rng.permutation(0.5 ** np.arange(UNITS))
    matrix = rng.choice([-1, 1], (UNITS, UNITS)) * 2.0 ** rng.integers(0, 4, (UNITS, UNITS))
    multiplier = 0.9 / float(np.linalg.norm(matrix, 2)) / (8 * values)
    whole = (matrix * 8 * values).astype(np.int8)
    return network(multiplier=multiplier, recurrent=whole, delta=1 / 16384), tuple(values.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_weights_bound_errors_of_states_in_different_units_at_any_length(seed: int) -> None:
    """Two sequences of a thousand steps, one with an error in each step and each with its roundings."""
    program, weights = in_other_units(seed)
    (plain,), (certificate,) = certificates(program), certificates(program, {"by_state": weights})
    assert plain.norm > 1 and certificate.norm == pytest.approx(0.9)
    assert plain.error_bound == float("inf") and certificate.error_bound == pytest.approx(10)
    assert (plain.reach, plain.window) == (certificate.reach, certificate.window)
    by_name = {layer.name: layer for layer in program.layers}
    table, linear, scale = by_name["state"], by_name["by_state"], np.array(weights)
    assert isinstance(table, ReLU)
    rng = np.random.default_rng(seed)
    states = np.zeros((2, UNITS), dtype=np.int64)
    errors, lengths = rng.integers(1, 4, (1000, UNITS)), []
    for error in errors:
        own = rng.integers(-4, 12, UNITS) / table.multiplier
        states = table.plain(linear.plain(states) + np.rint(own).astype(np.int64))
        states[1] += np.where(states[1] >= states[0], error, -error)
        lengths.append(float(np.linalg.norm(scale * (states[1] - states[0]))))
    in_a_step = float(np.linalg.norm(scale * errors, axis=1).max() + np.linalg.norm(scale))
    assert in_a_step < max(lengths) <= in_a_step * certificate.error_bound


def test_the_norm_of_both_ramps_of_a_sum_has_the_greater_of_their_weights(images: NDArray[np.uint8]) -> None:
    both = network(recurrent=np.hstack([BY_STATE, BY_STATE[::-1]]), kind=CReLU)
    weights = (1.0, 0.25, 0.5, 0.5, 0.25, 0.75, 0.5, 0.25)
    (certificate,) = certificates(both, {"by_state": weights})
    rows = np.array([[1.0], [0.5], [0.75], [0.5]])
    gain = 0.2 * np.hstack([BY_STATE, BY_STATE[::-1]]).astype(float)
    assert certificate.norm == pytest.approx(float(np.linalg.norm(rows * gain / np.array(weights), 2)))
    (errors,) = state_errors.measure(with_weights(both, weights), TOY, images[:20], np.random.default_rng(0))
    assert len(errors.measured) == STEPS and 0 < errors.fresh < errors.measured[-1]


def test_a_program_states_its_weights_and_writes_none_down_where_there_are_none(
    program: Program, tmp_path: Path
) -> None:
    plain, weighted = replace(program, recurrent=certificates(program)), with_weights(program)
    assert weighted.digest != plain.digest
    for certified, members in ((plain, set()), (weighted, {"weights"})):
        certified.save(tmp_path)
        (stated,) = json.loads((tmp_path / "program.json").read_text())["recurrent"]
        assert stated.keys() == {"layer", "norm", "reach", "window"} | members
        loaded = Program.load(tmp_path)
        assert loaded.recurrent == certified.recurrent and loaded.digest == certified.digest


def test_weights_that_do_not_give_the_norm_are_refused(program: Program) -> None:
    (plain,), (certificate,) = certificates(program), certificates(program, {"by_state": WEIGHTS})
    assert certificate.norm != plain.norm
    for wrong in (
        replace(certificate, weights=(0.8, 1.0, 1.0, 0.7)),
        replace(certificate, norm=plain.norm),
        replace(plain, weights=WEIGHTS),
        replace(certificate, weights=()),
        replace(certificate, layer="by_input"),
        replace(certificate, weights=(1.0, 1e-300, 1.0, 1.0), norm=0.5),
        replace(certificate, weights=(1.0, 5e-324, 5e-324, 5e-324), norm=0.0),
    ):
        with pytest.raises(ProgramError, match="export it again"):
            replace(program, recurrent=(wrong,))
    for weights in ((1.0,), (*WEIGHTS, 1.0)):
        with pytest.raises(ProgramError, match=f"4 states, its certificate {len(weights)} weights; export"):
            certificates(program, {"by_state": weights})


@pytest.mark.parametrize(
    "weights",
    [
        "1.0",
        "abcd",
        None,
        1.0,
        True,
        {"0": 1.0, "1": 1.0},
        ["1.0"] * UNITS,
        [[1.0]] * UNITS,
        [list(WEIGHTS)],
        [1.0, None, 1.0, 1.0],
        [1.0, True, 1.0, 1.0],
        [1, 1, 1, 1],
        [10**400, 1.0, 1.0, 1.0],
        [1.0, float("nan"), 1.0, 1.0],
        [float("nan")] * UNITS,
        [1.0, float("inf"), 1.0, 1.0],
        [1.0, 0.0, 1.0, 1.0],
        [1.0, -0.5, 1.0, 1.0],
        [0.5] * UNITS,
        [2.0, 1.0, 1.0, 1.0],
        [1.0, 1e-310, 1.0, 1.0],
        [1.0] * (UNITS - 1),
        [1.0] * 1_000_000,
    ],
    ids=lambda weights: str(weights)[:24],
)
def test_weights_in_a_file_that_are_none_are_refused(program: Program, weights: Any, tmp_path: Path) -> None:
    with_weights(program).save(tmp_path)
    description = json.loads((tmp_path / "program.json").read_text())
    description["recurrent"][0]["weights"] = weights
    (tmp_path / "program.json").write_text(json.dumps(description))
    with pytest.raises(ProgramError, match="export") as refused:
        Program.load(tmp_path)
    assert len(str(refused.value)) < 1000


def test_a_certificate_says_which_weights_it_takes() -> None:
    with pytest.raises(
        ProgramError, match=r"layer 'states' has weights other than numbers above 0.*; export the program again"
    ):
        Certificate(layer="states", norm=0.5, reach=0.1, window=0.4, weights=(0.0, 1.0))


def test_lengths_of_errors_have_the_weights_of_the_certificate(program: Program, images: NDArray[np.uint8]) -> None:
    """The squares of both pairs of weights add up to 1.64 for each state."""
    certified = [program, with_weights(program), with_weights(program, (1.0, 0.8, 0.8, 1.0))]
    plain, first, second = (state_errors.measure(each, TOY, images, np.random.default_rng(0))[0] for each in certified)
    assert np.allclose(np.square(first.measured) + np.square(second.measured), 1.64 * np.square(plain.measured))
    assert first.fresh**2 + second.fresh**2 == pytest.approx(1.64 * plain.fresh**2)
    (certificate,), (other,) = certified[1].recurrent, certified[2].recurrent
    assert certificate.norm < 1 < other.norm
    assert first.bound == pytest.approx(first.fresh / (1 - certificate.norm)) and second.bound == float("inf")
    assert 0 < max(first.measured) <= first.bound


def test_errors_of_the_states_stay_within_the_certificate_over_time(
    program: Program, images: NDArray[np.uint8]
) -> None:
    (errors,) = state_errors.measure(program, TOY, images, np.random.default_rng(0))
    assert len(errors.measured) == STEPS
    assert 0 < max(errors.measured) <= errors.bound
    late, early = errors.measured[-4:], errors.measured[2:6]
    assert max(late) < 2 * max(early)


def test_a_layer_that_does_not_forget_has_no_bound(images: NDArray[np.uint8]) -> None:
    wide = network(multiplier=0.4)
    (certificate,) = certificates(wide)
    assert certificate.norm > 1 and certificate.error_bound == float("inf")


def test_encrypted_states_lie_where_simulated_ones_do_at_every_step(
    program: Program, images: NDArray[np.uint8]
) -> None:
    """Root mean square of the error over all states of some encryptions, at each step, beside 200 simulations of the same image."""
    image, runs = images[:1], 12
    (simulated,) = state_errors.measure(program, TOY, np.repeat(image, 400, axis=0), np.random.default_rng(0))
    keys = ClientKeys.generate(TOY)
    circuit = evaluate.EncryptedCircuit(keys.evaluation_keys(1).expand(1), threads=1)
    turns = program.integers(image).reshape(-1) * program.input.delta
    expected = {
        stage.layer.name: states[0]
        for stage, states in program.traverse(
            program.integers(image), lambda parts: np.concatenate(parts, axis=1), lambda stage, x: stage.layer.plain(x)
        )
    }
    squares: dict[str, list[float]] = {}
    for _ in range(runs):
        rows = lwe.sample_extract(ckks.encrypt(keys, "00" * 32, turns))
        for stage, result in program.walk(circuit, rows, TOY.polynomial_size):
            if isinstance(stage.layer, Table):
                words = result.data[:, -1] - result.data[:, :-1] @ keys.big_lwe_keys[0].astype(np.uint32)
                levels = words.astype(np.int32) / 2.0**32 / stage.output_delta
                squares.setdefault(stage.layer.name, []).append(
                    float(((levels - expected[stage.layer.name]) ** 2).sum())
                )
    encrypted = [float(np.sqrt(np.mean(values))) for values in squares.values()]
    assert len(encrypted) == STEPS and max(encrypted) <= simulated.bound
    ratios = np.array(encrypted) / np.array(simulated.measured)
    assert 0.6 < float(np.sqrt((ratios**2).mean())) < 1.5, ratios


def test_the_clear_network_is_the_formula(program: Program, images: NDArray[np.uint8]) -> None:
    x = np.rint(images / 255 * LEVELS).astype(int)
    h = np.zeros((len(x), UNITS))
    for step in range(STEPS):
        sums = x[:, step] @ BY_INPUT.T.astype(int) + h @ BY_STATE.T.astype(int) + 8
        h = np.clip(np.floor(sums * 0.2 + 0.5), 0, LEVELS)
    assert np.array_equal(simulate.plain(program, images), h @ BY_STATE[:2].T.astype(int))
