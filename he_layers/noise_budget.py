"""How much noise every look-up of a Program reads, and how often it is too much: variances carried through the same circuit.

The third reading of a layer's circuit, beside he_layers.simulate and he_layers.evaluate: here a value is the variance of its noise. The
errors of different ciphertexts are taken as independent and Gaussian.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from he_layers.crypto.errors import ProgramError
from he_layers.crypto.noise import gaussian_tail
from he_layers.crypto.params import ParameterSet
from he_layers.layers.layer import FloatArray, IntArray, LinearLayer, Shape, flat_size
from he_layers.program import Program
from he_layers.simulate import CircuitNoise

LOG2_FAILURE_LIMIT = -40.0
"""Greatest probability, as log2, that one look-up of the exact profile reads a wrong integer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variances:
    """Noise of each value, turns squared [count], and the keys that the ciphertexts would be under."""

    variances: FloatArray
    under_input_key: bool
    under_big_key: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StageNoise:
    """Noise of the phases that a layer's look-ups read, or of the logits.

    Attributes:
        layer: its name; "logits" for the answer.
        lookups: of one image; one for each logit.
        std_dev: greatest standard deviation among them, turns.
        log2_failure: of the probability that one of them is off by half an integer unit or more; None in the fast profile.
    """

    layer: str
    lookups: int
    std_dev: float
    log2_failure: float | None


class VarianceCircuit:
    """The circuit operations (he_layers.layers.layer.Circuit) on variances."""

    def __init__(self, levels: CircuitNoise) -> None:
        """Args: levels: the noise of each primitive."""
        self.levels = levels
        self.read: list[FloatArray] = []

    def linear(self, x: Variances, layer: LinearLayer, shape: Shape) -> Variances:
        """Sum of squared weights times variances."""
        entries = layer.entries(shape)
        shares = entries.values.astype(np.float64) ** 2 * x.variances[entries.column]
        sums = np.bincount(entries.row, weights=shares, minlength=entries.rows).astype(np.float64)
        return replace(x, variances=sums)

    def add_constant(self, x: Variances, turns: FloatArray) -> Variances:
        """A constant has no noise."""
        return x

    def add(self, a: Variances, b: Variances) -> Variances:
        """Variances add up."""
        return Variances(
            variances=a.variances + b.variances,
            under_input_key=a.under_input_key or b.under_input_key,
            under_big_key=a.under_big_key or b.under_big_key,
        )

    def subtract(self, a: Variances, b: Variances) -> Variances:
        """Variances add up."""
        return self.add(a, b)

    def select(self, x: Variances, index: IntArray) -> Variances:
        """The values at the given places."""
        return replace(x, variances=x.variances[index])

    def lookup(self, x: Variances, tables: FloatArray, table_index: NDArray[np.int32]) -> Variances:
        """Notes what is read; the result has a bootstrap's own noise."""
        self.read.append(x.variances + self.levels.lookup_input(x.under_input_key, x.under_big_key) ** 2)
        fresh = np.full(len(x.variances), self.levels.lookup**2)
        return Variances(variances=fresh, under_input_key=False, under_big_key=True)


def of_program(program: Program, params: ParameterSet) -> list[StageNoise]:
    """Predicted noise of every layer with look-ups, in order, and of the logits."""
    levels = CircuitNoise.predicted(params)
    circuit = VarianceCircuit(levels)
    pixels = np.full(flat_size(program.input.shape), levels.fresh**2)
    x = Variances(variances=pixels, under_input_key=True, under_big_key=False)
    stages = []
    for stage, result in program.walk(circuit, x, params.polynomial_size):
        if circuit.read:
            stages.append(_stage_noise(program, stage.layer.name, np.concatenate(circuit.read), stage.delta))
            circuit.read.clear()
        logits = result.variances + levels.packing**2
    return [*stages, _stage_noise(program, "logits", logits, program.logit_delta)]


def log2_failure(stages: list[StageNoise]) -> float:
    """log2 of the probability that any look-up or logit of one image is off, by the union bound; -inf if it is nothing at all."""
    exponents = [math.log2(stage.lookups) + stage.log2_failure for stage in stages if stage.log2_failure is not None]
    return float(np.logaddexp2.reduce(exponents))


def require_exact(program: Program, params: ParameterSet) -> None:
    """Refuses a Program of the exact profile that is not exact under these parameters; accepts any of the fast one.

    Raises:
        ProgramError: names the layer and its failure probability.
    """
    for stage in of_program(program, params) if program.profile == "exact" else ():
        if stage.log2_failure is not None and stage.log2_failure > LOG2_FAILURE_LIMIT:
            raise ProgramError(
                f"layer {stage.layer!r} of {program.name!r} reads a wrong integer with probability 2^{stage.log2_failure:.1f} under "
                f"{params.name}, at most 2^{LOG2_FAILURE_LIMIT:.0f}; lower its modulus or fan-in, or choose a larger set"
            )


def _stage_noise(program: Program, name: str, variances: FloatArray, delta: float) -> StageNoise:
    std = math.sqrt(float(variances.max()))
    failure = math.log2(gaussian_tail(delta / 2 / std)) if program.profile == "exact" else None
    return StageNoise(layer=name, lookups=len(variances), std_dev=std, log2_failure=failure)
