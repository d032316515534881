"""Noise of every layer of an encrypted network, measured with the secret keys at hand, against the simulation's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.noise import KEY_ID, phases
from benchmarks.watched import watched
from he_layers.crypto import ckks, lwe, params
from he_layers.crypto.secret_keys import ClientKeys
from he_layers.evaluate import EncryptedCircuit
from he_layers.program import Program
from he_layers.simulate import CircuitNoise, NoisyCircuit

SIMULATIONS = 20


def measure(program: Program, image: NDArray[np.uint8], *, threads: int) -> list[dict[str, Any]]:
    """Returns an object per layer: standard deviations, over the layer's values, of their difference from the noiseless circuit's.

    `encrypted_std` and `simulated_std` are in 1e-3 turns, the simulation drawn SIMULATIONS times; what earlier layers add is in both.

    Args:
        program: the network.
        image: uint8 [1, C, H, W].
        threads: of the kernel.
    """
    parameter_set = params.get(program.params)
    size = parameter_set.polynomial_size
    turns = np.asarray(program.input.integers(image).reshape(1, -1) * program.input.delta, dtype=np.float64)
    clear = _turns(program, CircuitNoise.silent(size), turns)
    simulated = _turns(program, CircuitNoise.predicted(parameter_set), np.repeat(turns, SIMULATIONS, axis=0))

    keys = ClientKeys.generate(parameter_set)
    circuit = EncryptedCircuit(keys.evaluation_keys(threads).expand(threads), threads=threads)
    pixels = lwe.sample_extract(ckks.encrypt(keys, KEY_ID, turns[0]))
    secrets = {len(key): key for key in (keys.input_secret, keys.big_lwe_key)}
    both = np.concatenate([keys.input_secret, keys.big_lwe_key])
    secrets[len(both)] = both
    found = []
    steps = watched(program.walk(circuit, pixels, size), f"{program.name}: noise by layer", len(program.stages))
    for stage, x in steps:
        name = stage.layer.name
        encrypted = _deviation(phases(x.data, secrets[x.dimension]), clear[name][0])
        expected = _deviation(simulated[name], clear[name])
        found.append(
            {
                "layer": name,
                "values": len(x),
                "encrypted_std": round(1e3 * encrypted, 4),
                "simulated_std": round(1e3 * expected, 4),
                "ratio": round(encrypted / expected, 3),
            }
        )
    return found


def _turns(program: Program, levels: CircuitNoise, turns: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    circuit = NoisyCircuit(levels, np.random.default_rng(0))
    results = program.walk(circuit, circuit.encrypt(turns), levels.polynomial_size)
    return {stage.layer.name: x.turns for stage, x in results}


def _deviation(found: NDArray[np.float64], clear: NDArray[np.float64]) -> float:
    errors = found - clear
    return float((errors - np.rint(errors)).std())
