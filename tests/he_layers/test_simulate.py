"""The simulated circuit: exact without noise, right at the wrap and at saturation, as noisy as predicted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Linear, MaxPool2d, ReLU
from ciphershift.he_layers.layers.layer import Scale
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit, TorusNumbers

SILENT = CircuitNoise.silent(1 << 16)


def circuit(**noise: Any) -> NoisyCircuit:
    return NoisyCircuit(replace(SILENT, **noise), np.random.default_rng(0))


def numbers(turns: NDArray[np.floating]) -> TorusNumbers:
    return TorusNumbers(turns=np.asarray(turns, dtype=np.float64), under_input_key=False, under_big_key=True)


def test_without_noise_the_circuit_is_the_plain_network(tiny_program: Program, tiny_images: NDArray[np.uint8]) -> None:
    spread_fits = replace(tiny_program, input=replace(tiny_program.input, delta=1 / 1024))
    found = simulate.run_with(spread_fits, SILENT, tiny_images, np.random.default_rng(0))
    assert np.allclose(found, simulate.plain(tiny_program, tiny_images), atol=1e-6)


def test_relu_saturates_and_comes_up_again_below_its_window() -> None:
    # One integer unit is 1/1024 turn; the ramp is 7 * 32 / 1024 = 0.21875 turns; the window begins at -0.5 + 0.21875.
    delta, levels = 1 / 1024, 7
    relu = ReLU(
        name="r", bias=np.zeros(1, dtype=np.int32), multiplier=np.array([1 / 32]), levels=levels, delta_out=1 / 64
    )
    x = np.arange(-512, 512)
    scale = Scale(shape=(1, len(x)), delta=delta, polynomial_size=SILENT.polynomial_size)
    found = relu.apply(circuit(), numbers(x[None] * delta), scale).turns[0] * 64
    inside = x > -512 + 240
    assert np.allclose(found[inside], relu.plain(x[None, None])[0, 0][inside])
    assert found[-1] == levels
    below = x < -512 + 200
    mirrored = levels - relu.plain(x[None, None][..., below] + 512)[0, 0]
    assert np.allclose(found[below], mirrored)


def test_max_pool_is_exact_while_values_differ_by_less_than_a_quarter_turn() -> None:
    layer = MaxPool2d(name="m", kernel=(1, 2), stride=(1, 2))
    pairs = np.array([[0.1, -0.1], [-0.3, -0.06], [0.0, 0.24], [0.2, 0.2], [0.3, 0.0], [0.0, 0.3]])
    scale = Scale(shape=(1, 1, pairs.size), delta=1.0, polynomial_size=SILENT.polynomial_size)
    found = layer.apply(circuit(), numbers(pairs.reshape(1, -1)), scale).turns[0]
    assert np.allclose(found[:4], pairs[:4].max(axis=1), atol=1e-5)
    # a - b = 0.3 saturates at b + 1/4; a - b = -0.3 is 0.05 below the window and comes up by that much.
    assert np.allclose(found[4:], [0.25, 0.35], atol=1e-5)


def test_a_value_from_before_a_look_up_keeps_both_keys() -> None:
    under_input = TorusNumbers(turns=np.zeros((1, 2)), under_input_key=True, under_big_key=False)
    table, index = np.zeros((1, SILENT.polynomial_size)), np.zeros(2, dtype=np.int32)
    looked_up = circuit().lookup(under_input, table, index)
    mixed = circuit().add(under_input, looked_up)
    assert (looked_up.under_input_key, looked_up.under_big_key) == (False, True)
    assert (mixed.under_input_key, mixed.under_big_key) == (True, True)


@pytest.mark.parametrize(("under_input", "under_big", "expected"), [(True, False, 5.0), (False, True, 13.0)])
def test_a_look_up_sees_the_noise_of_its_key(under_input: bool, under_big: bool, expected: float) -> None:
    # 20 000 samples: the standard deviation is known to 0.5 %, the tolerance is 3 %.
    count, unit = 20_000, 1e-3
    noisy = circuit(modulus_switch=3 * unit, input_key_switch=4 * unit, big_key_switch=(13**2 - 3**2) ** 0.5 * unit)
    size = SILENT.polynomial_size
    ramp = (np.minimum(np.arange(size) / (2 * size), 0.4) - 0.2)[None]  # the identity near its middle
    x = TorusNumbers(turns=np.full((1, count), 0.2), under_input_key=under_input, under_big_key=under_big)
    found = noisy.lookup(x, ramp, np.zeros(count, dtype=np.int32)).turns
    assert found.std() / unit == pytest.approx(expected, rel=0.03)


def test_logits_carry_the_noise_of_their_inputs_and_of_packing(
    tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    # The last layer adds sum w^2 * lookup^2 to packing^2; 800 runs give the standard deviation to 2.5 %, the tolerance is 10 %.
    noise = replace(SILENT, lookup=1e-4, packing=3e-4)
    images = np.repeat(tiny_images[:1], 800, axis=0)
    found = simulate.run_with(tiny_program, noise, images, np.random.default_rng(0)) / tiny_program.turns_to_logits
    dense = tiny_program.layers[-1]
    assert isinstance(dense, Linear)
    weight = dense.weight.astype(float)
    only_last = replace(noise, lookup=0.0)
    quiet = simulate.run_with(tiny_program, only_last, images, np.random.default_rng(0)) / tiny_program.turns_to_logits
    assert quiet.std(axis=0) == pytest.approx(np.full(3, 3e-4), rel=0.1)
    expected = np.sqrt((weight**2).sum(axis=1) * 1e-4**2 + 3e-4**2)
    assert found.std(axis=0) == pytest.approx(expected, rel=0.1)


def test_the_predicted_noise_is_used_and_reproducible(tiny_program: Program, tiny_images: NDArray[np.uint8]) -> None:
    params = parameter_sets.get(tiny_program.params)
    runs = [simulate.run(tiny_program, params, tiny_images, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
