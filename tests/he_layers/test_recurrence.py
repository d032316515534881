"""Recurrent layers of a Program: shared arrays, certificates, and errors over time, simulated and encrypted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import ProgramError
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.analysis import state_errors
from ciphershift.he_layers.crypto import ckks, lwe, params
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Add, Gather, Layer, Linear, ReLU
from ciphershift.he_layers.layers.table import Table
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.he_layers.recurrence import certificates

TOY = params.get("TOY_N128")
STEPS, FEATURES, UNITS, LEVELS = 12, 2, 4, 15
RNG = np.random.default_rng(5)
BY_INPUT = RNG.choice(np.array([-2, 0, 1, 2], dtype=np.int8), (UNITS, FEATURES))
BY_STATE = RNG.choice(np.array([-2, -1, 1, 2], dtype=np.int8), (UNITS, UNITS))


def network(*, multiplier: float = 0.2) -> Program:
    """h = clip(0.2 (W x + U h + 8)), twelve steps, and two logits of the last state."""
    layers: list[Layer] = []
    by_input = Linear(name="by_input", weight=BY_INPUT)
    by_state = Linear(name="by_state", weight=BY_STATE)
    table = ReLU(
        name="state",
        bias=np.full(UNITS, 8, dtype=np.int32),
        multiplier=np.full(UNITS, multiplier),
        levels=LEVELS,
        delta_out=1 / 512,
    )
    for step in range(STEPS):
        index = np.arange(FEATURES, dtype=np.int32) + step * FEATURES
        layers.append(Gather(name=f"x{step}", shape=(FEATURES,), index=index, inputs=("image",)))
        layers.append(by_input if step == 0 else replace(by_input, name=f"by_input{step}").sharing(by_input))
        if step:
            recurrent = by_state if step == 1 else replace(by_state, name=f"by_state{step}").sharing(by_state)
            before = "state" if step == 1 else f"state{step - 1}"
            layers.append(replace(recurrent, inputs=(before,)))
            layers.append(Add(name=f"sum{step}", terms=2, inputs=(layers[-2].name, layers[-1].name)))
        layers.append(table if step == 0 else replace(table, name=f"state{step}").sharing(table))
    layers.append(Linear(name="logits", weight=BY_STATE[:2]))
    return Program(
        name="steps",
        version="1",
        params=TOY.name,
        input=InputSpec(shape=(STEPS, FEATURES), levels=LEVELS, delta=1 / 512),
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
