"""What answers an attacker who chooses every input: the encrypted circuit, and, for control, the same network in the clear."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ciphershift.benchmarks.extraction.recovery import true_rows
from ciphershift.benchmarks.extraction.victims import Victim
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers import Linear
from ciphershift.he_layers.layers.layer import FloatArray
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit

Oracle = Callable[[FloatArray], FloatArray]
"""Answers [n, classes] to inputs [n, values] that an attacker chooses, as `Victim.read` gives them; it can encrypt any real number."""


def oracle(victim: Victim, program: Program, parameter_set: ParameterSet | None, seed: int = 0) -> Oracle:
    """Returns what gives the answers of a Program: with the circuit's noise, or, without a parameter set, without any."""
    silent = CircuitNoise.silent(params.get(program.params).polynomial_size)
    products = not program.lookups
    noise = silent if parameter_set is None else CircuitNoise.predicted(parameter_set, products=products)
    circuit = NoisyCircuit(noise, np.random.default_rng(seed))
    scale = program.input.levels * program.input.delta

    def ask(inputs: FloatArray) -> FloatArray:
        turns = (inputs * victim.spread + victim.center) * scale
        found = []
        for start in range(0, len(turns), simulate.BATCH):
            encrypted = circuit.encrypt(turns[start : start + simulate.BATCH])
            *_, (_, last) = program.walk(circuit, encrypted, noise.polynomial_size)
            found.append(program.logits(circuit.decrypt(last, program.output)))
        return np.concatenate(found)

    return ask


def unrounded(victim: Victim) -> Oracle:
    """Returns the answers of a network of depth 2 in real numbers: no activation is rounded."""
    rows, last = true_rows(victim), victim.program.layers[-1]
    assert isinstance(last, Linear), "a network of depth 2 ends in a dense layer"
    weight = last.weight.astype(np.float64)
    return lambda inputs: np.asarray(np.clip(inputs @ rows[:, :-1].T + rows[:, -1], 0, 1) @ weight.T)


CONTROLS: Mapping[str, Callable[[Victim], Oracle]] = {
    "clear": lambda victim: oracle(victim, victim.program, None),
    "real": unrounded,
}
"""Answers that no service gives, on which an attack that needs exact ones is tried: without noise, and without rounding either."""
