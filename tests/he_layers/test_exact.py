"""The exact profile: look-ups of residues, their integer semantics against the circuit, and how often they fail."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import OutOfLevelsError, ProgramError
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Scale
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.he_layers.simulate import CircuitNoise

MODULUS = 32
SILENT = CircuitNoise.silent(512)


def relu(channels: int, *, modulus: int | None = MODULUS, levels: int = 3, delta_out: float = 1 / MODULUS) -> ReLU:
    return ReLU(
        name="relu",
        bias=np.arange(channels, dtype=np.int32) - 2,
        multiplier=np.linspace(0.4, 0.9, channels),
        levels=levels,
        delta_out=delta_out,
        modulus=modulus,
    )


def program(*layers: Layer, profile: str = "exact", set_name: str = "TOY_N128", delta: float = 1 / MODULUS) -> Program:
    """Two pixel levels, a convolution to three channels, the given layers, and a dense layer of weights one."""
    rng = np.random.default_rng(3)
    conv = Conv2d(name="conv", weight=rng.integers(-1, 2, (3, 1, 3, 3)).astype(np.int8))
    shape: tuple[int, ...] = conv.output_shape((1, 8, 8))
    for layer in layers:
        shape = layer.output_shape(shape)
    dense = np.zeros((2, int(np.prod(shape))), dtype=np.int8)
    dense[0, ::5], dense[1, ::7] = 1, -1
    last = Linear(name="dense", weight=dense, modulus=MODULUS if profile == "exact" else None)
    return Program(
        name="exact",
        version="1",
        params=set_name,
        profile=profile,
        input=InputSpec(shape=(1, 8, 8), levels=3, delta=delta),
        layers=(conv, *layers, Flatten(name="flat"), last),
        output=OutputSpec(classes=("a", "b"), scale=1.0),
    )


@pytest.mark.parametrize("modulus", [32, 48, 250])
def test_relu_of_every_residue_is_what_the_circuit_looks_up(modulus: int) -> None:
    """Far beyond the window, too: sums from -3 to +3 turns."""
    layer = relu(3, modulus=modulus)
    values = np.tile(np.arange(-3 * modulus, 3 * modulus).reshape(-1, 1, 1), (1, 3, 1))
    circuit = simulate.NoisyCircuit(SILENT, np.random.default_rng())
    scale = checked_scale(layer, (3, 1), 1 / modulus)
    turns = layer.apply(circuit, circuit.encrypt(values.reshape(len(values), -1) / modulus), scale).turns
    assert np.allclose(turns / layer.delta_out, layer.plain(values).reshape(len(values), -1), atol=1e-9)


def test_relu_of_a_residue_is_the_clipped_ramp_inside_its_window() -> None:
    layer, free = relu(3), relu(3, modulus=None)
    ramp = int(np.ceil((layer.levels + 0.5) / layer.multiplier.min()))
    inside = np.arange(-MODULUS // 2 + ramp, MODULUS // 2).reshape(-1, 1, 1) - layer.bias.reshape(1, 3, 1)
    assert np.array_equal(layer.plain(inside), free.plain(inside))
    assert not np.array_equal(layer.plain(inside - ramp), free.plain(inside - ramp))


def test_max_pool_of_residues_is_the_circuits_tree_and_the_maximum_inside_its_window() -> None:
    layer = MaxPool2d(name="pool", kernel=(2, 3), stride=(2, 3), modulus=MODULUS)
    rng = np.random.default_rng(1)
    circuit = simulate.NoisyCircuit(SILENT, rng)
    for spread, is_maximum in ((MODULUS // 8, True), (MODULUS, False)):
        values = rng.integers(-spread, spread + 1, (200, 2, 4, 6))
        scale = checked_scale(layer, (2, 4, 6), 1 / MODULUS)
        turns = layer.apply(circuit, circuit.encrypt(values.reshape(200, -1) / MODULUS), scale).turns
        difference = turns * MODULUS - layer.plain(values).reshape(200, -1)
        assert np.allclose(np.mod(difference + 0.5, MODULUS), 0.5, atol=1e-9)
        greatest = values.reshape(200, 2, 2, 2, 2, 3).max(axis=(3, 5))
        assert np.array_equal(layer.plain(values), greatest) is is_maximum


def checked_scale(layer: Layer, shape: tuple[int, ...], delta: float) -> Scale:
    layer.output_delta(delta)
    return Scale(shape=shape, delta=delta, polynomial_size=SILENT.polynomial_size)


def test_the_profile_and_the_layers_must_agree() -> None:
    with pytest.raises(ProgramError, match="modulus None; look-ups and logits have one in the exact profile"):
        program(relu(3, modulus=None))
    with pytest.raises(ProgramError, match=f"modulus {MODULUS}; look-ups and logits have one in the exact profile"):
        program(relu(3), profile="fast")
    with pytest.raises(ProgramError, match="give it delta = 1 / 32"):
        program(relu(3), delta=1 / 64)
    with pytest.raises(ProgramError, match="profile 'precise' is not known"):
        program(relu(3), profile="precise")
    for modulus in (31, 2, 258):
        with pytest.raises(OutOfLevelsError, match=f"modulus = {modulus}"):
            relu(3, modulus=modulus)


def test_noise_is_carried_through_the_circuit_as_simulation_draws_it() -> None:
    """Variance of each layer's input noise, predicted against 4000 simulated images."""
    small = replace(CircuitNoise.predicted(params.FAST_N512), lookup=2e-4, fresh=1e-4)
    network = program(MaxPool2d(name="pool", kernel=(2, 2), stride=(2, 2), modulus=MODULUS), relu(3))
    pixels = noise_budget.Gains(multiples=np.tile([1.0, 0.0], (64, 1)), under_input_key=True, under_big_key=False)
    own = np.array([small.fresh**2, small.lookup**2])
    predicted = [result.multiples @ own for _, result in network.walk(noise_budget.GainCircuit(), pixels, 2)]
    no_switches = replace(small, modulus_switch=0, input_key_switch=0, big_key_switch=0)
    quiet, noisy = (simulate.NoisyCircuit(levels, np.random.default_rng(0)) for levels in (SILENT, no_switches))
    turns = np.zeros((4000, 64))
    pairs = zip(
        network.walk(noisy, noisy.encrypt(turns), 512), network.walk(quiet, quiet.encrypt(turns), 512), strict=True
    )
    for variances, ((stage, with_noise), (_, without)) in zip(predicted, pairs, strict=True):
        error = (with_noise.turns - without.turns + 0.5) % 1 - 0.5
        used = variances > 0
        ratio = error.var(axis=0)[used].mean() / variances[used].mean()
        assert 0.9 < ratio < 1.1, stage.layer.name


def test_a_program_that_would_fail_too_often_is_refused_by_layer() -> None:
    network = program(relu(3), set_name="FAST_N512")
    with pytest.raises(
        ProgramError, match=r"layer 'relu' .* reads a wrong integer with probability 2\^-[0-9.]+ under FAST_N512"
    ):
        noise_budget.require_exact(network, params.FAST_N512)
    noise_budget.require_exact(program(relu(3, modulus=None), profile="fast"), params.FAST_N512)


def test_the_failure_probability_is_that_of_half_a_unit_and_adds_up_over_an_image() -> None:
    network = program(relu(3), set_name="FAST_N512")
    stages = noise_budget.of_program(network, params.FAST_N512)
    relu_stage, logits = stages
    assert relu_stage.lookups == 108
    # One sample in so many is more than half a unit off: measured on 200 000 Gaussian errors of the predicted size.
    errors = np.random.default_rng(0).normal(0, relu_stage.std_dev, 200_000)
    assert relu_stage.log2_failure is not None
    assert logits.log2_failure is not None
    assert np.mean(np.abs(errors) > 0.5 / MODULUS) == pytest.approx(2**relu_stage.log2_failure, rel=0.15)
    total = 108 * 2.0**relu_stage.log2_failure + 2 * 2.0**logits.log2_failure
    assert noise_budget.log2_failure(stages) == pytest.approx(np.log2(total))


def test_encrypted_logits_are_the_integer_networks_to_the_last_bit() -> None:
    """With the toy key; its noise lets a residue modulo 32 be read with certainty."""
    toy = params.get("TOY_EXACT_N512")
    network = program(MaxPool2d(name="pool", kernel=(2, 2), stride=(2, 2), modulus=MODULUS), relu(3), set_name=toy.name)
    noise_budget.require_exact(network, toy)
    keys = ClientKeys.generate(toy)
    server_keys = keys.evaluation_keys().expand(2)
    images = np.random.default_rng(2).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    assert np.array_equal(decrypted(network, keys, server_keys, images), simulate.plain(network, images))


def decrypted(
    network: Program, keys: ClientKeys, server_keys: ServerKeys, images: NDArray[np.uint8]
) -> NDArray[np.float64]:
    rows = []
    for integers in network.input.integers(images):
        ciphertext = ckks.encrypt(keys, "00" * 32, integers.reshape(-1) * network.input.delta)
        *_, last = evaluate.run(network, server_keys, [[ciphertext]], threads=2)
        assert last.answer is not None
        rows.append(np.rint(ckks.decrypt(keys, last.answer) / network.logit_delta))
    return np.stack(rows)
