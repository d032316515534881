"""Noise of every layer of an encrypted network, measured with the secret keys at hand, against the simulation's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.crypto.noise import KEY_ID, phases
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers.crypto import ckks, lwe
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.evaluate import EncryptedCircuit
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit

SIMULATIONS = 20
KEYS = 0.02
"""Standard deviation of a ratio from one pair of keys to another: a bootstrap's and a modulus switch's ratios have 0.01 to 0.02 under six
keys each (docs/noise.md). All layers of a run are under one pair."""


def measure_layers(program: Program, images: NDArray[np.uint8], *, threads: int) -> list[dict[str, Any]]:
    """Returns an object per layer: standard deviations, over the layer's values, of their difference from the noiseless circuit's.

    `encrypted_std` and `simulated_std` are in 1e-3 turns, the simulation drawn SIMULATIONS times; what earlier layers add is in both.
    `ratio_std` is the standard deviation of the ratio, found from the single draws of the simulation: the sums of a layer share the
    noise of its inputs, so that many values may tell no more than a few.

    Args:
        program: the network.
        images: uint8 [B, C, H, W].
        threads: of the kernel.
    """
    parameter_set = served_params(program)
    size = parameter_set.polynomial_size
    turns = np.asarray(program.integers(images).reshape(len(images), -1) * program.input.delta, dtype=np.float64)
    clear = _turns(program, CircuitNoise.silent(size), turns)
    simulated = _turns(program, CircuitNoise.predicted(parameter_set), np.tile(turns, (SIMULATIONS, 1)))

    keys = ClientKeys.generate(parameter_set)
    circuit = EncryptedCircuit(keys.evaluation_keys(threads).expand(threads), threads=threads)
    secrets = {len(key): key for key in (keys.input_secret, keys.big_lwe_keys[0])}
    both = np.concatenate([keys.input_secret, keys.big_lwe_keys[0]])
    secrets[len(both)] = both
    encrypted: dict[str, list[NDArray[np.float64]]] = {name: [] for name in clear}
    for image in turns:
        pixels = lwe.sample_extract(ckks.encrypt(keys, KEY_ID, image))
        steps = watched(program.walk(circuit, pixels, size), f"{program.name}: noise by layer", len(program.stages))
        for stage, x in steps:
            encrypted[stage.layer.name].append(phases(x, secrets[x.dimension]))
    found = []
    for name, values in clear.items():
        measured = _deviations(np.stack(encrypted[name])[None], values)[0]
        draws = _deviations(simulated[name].reshape(SIMULATIONS, *values.shape), values)
        expected = np.sqrt(np.square(draws).mean())
        found.append(
            {
                "layer": name,
                "values": values.size,
                "encrypted_std": round(1e3 * float(measured), 4),
                "simulated_std": round(1e3 * float(expected), 4),
                "ratio": round(float(measured / expected), 3),
                "ratio_std": round(float(draws.std() / expected), 3),
            }
        )
    return found


def _turns(program: Program, noise: CircuitNoise, turns: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    circuit = NoisyCircuit(noise, np.random.default_rng(0))
    results = program.walk(circuit, circuit.encrypt(turns), noise.polynomial_size)
    return {stage.layer.name: x.turns for stage, x in results}


def _deviations(found: NDArray[np.float64], clear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each draw of ``found`` [draws, images, values] from ``clear`` [images, values]."""
    errors = found - clear
    return np.asarray((errors - np.rint(errors)).std(axis=(1, 2)))
