"""How far noise and rounding move the states of a recurrent layer, step by step, beside what its certificate allows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers.table import Table
from ciphershift.he_layers.program import Program, Stage
from ciphershift.he_layers.recurrence import recurrences, slopes, weights_of
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit

ROUNDING = 1 / 6
"""Variance of the difference of two roundings, in levels squared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateErrors:
    """Of one recurrent layer; errors are Euclidean lengths over all states, in levels, root mean squares over samples.

    Where the certificate has weights, each state's error counts times its weight: lengths are in levels of the state of weight one.

    Attributes:
        layer: name of its first step.
        fresh: error that a step adds: the look-ups' noise on the steepest table of all, the bootstraps', and rounding.
        bound: fresh / (1 - norm), which no step exceeds, however many there are; infinite if the certificate's norm is not below one.
        measured: of each step in turn, in a simulation beside the same without noise.
    """

    layer: str
    fresh: float
    bound: float
    measured: tuple[float, ...]


def measure(
    program: Program, params: ParameterSet, images: NDArray[np.uint8], rng: np.random.Generator
) -> list[StateErrors]:
    """The errors of every recurrent layer of a Program.

    Raises:
        BadShapeError: images are not uint8 [count, ...] of the Program's shape.
    """
    noise = CircuitNoise.predicted(params)
    integers = program.integers(images)
    circuit = NoisyCircuit(noise, rng)
    noisy: dict[str, NDArray[np.float64]] = {}
    pixels = circuit.encrypt(integers.reshape(len(integers), -1) * program.input.delta)
    for stage, result in program.walk(circuit, pixels, noise.polynomial_size):
        noisy[stage.layer.name] = result.turns / stage.output_delta
    errors: dict[str, NDArray[np.float64]] = {}
    walk = program.traverse(
        integers, lambda parts: np.concatenate(parts, axis=1), lambda stage, x: stage.layer.plain(x)
    )
    for stage, states in walk:
        if isinstance(stage.layer, Table):
            difference = noisy[stage.layer.name] - states.reshape(len(states), -1)
            errors[stage.layer.name] = (difference**2).mean(axis=0)
    found = []
    for certificate, steps in recurrences(program, weights_of(program.recurrent)):
        weights = np.array(certificate.weights or np.ones(steps[0].output_shape))
        fresh = max(_length(_fresh(step, noise), weights) for step in steps)
        found.append(
            StateErrors(
                layer=certificate.layer,
                fresh=fresh,
                bound=fresh * certificate.error_bound,
                measured=tuple(_length(errors[step.layer.name], weights) for step in steps),
            )
        )
    return found


def _length(variance: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """|D e| of errors of a variance in levels squared; both [states]."""
    return float(np.sqrt(weights**2 @ variance))


def _fresh(stage: Stage, noise: CircuitNoise) -> NDArray[np.float64]:
    """Variance of the error of one step, in levels squared, [states]: its input is under both keys."""
    assert isinstance(stage.layer, Table), "states are results of look-ups"
    read = noise.lookup_input(True, True) / stage.delta * slopes(stage.layer)
    variance = read**2 + (noise.lookup / stage.output_delta) ** 2 + ROUNDING
    return np.repeat(variance, stage.layer.results)
