"""How much noise every look-up of a Program reads, and how often it is too much.

In this circuit (he_layers.layers.layer.Circuit) a value is how often it holds the variance of a fresh ciphertext and that of a bootstrap's
output. That does not depend on the parameter set, which then says how large the two are.
The errors of different ciphertexts are taken as independent and Gaussian.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import ProgramError
from ciphershift.he_layers.crypto.noise import gaussian_tail
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers.layer import FloatArray, IntArray, LinearLayer, Shape, flat_size
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise

LOG2_FAILURE_LIMIT = -40.0
"""Greatest probability, as log2, that one look-up of the exact profile reads a wrong integer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gains:
    """Variances held by each value: multiples of a fresh ciphertext's and of a bootstrap output's, [count, 2]; and its keys."""

    multiples: FloatArray
    under_input_key: bool
    under_big_key: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StageGains:
    """Gains of what a layer's look-ups read (one entry for each call), or of the logits.

    Attributes:
        layer: its name; "logits" for the answer.
        read: of each call.
        delta: one integer unit in turns.
        refinement: of the answer, which divides the noise of packing.
    """

    layer: str
    read: tuple[Gains, ...]
    delta: float
    refinement: int = 1


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


class GainCircuit:
    """The circuit operations (he_layers.layers.layer.Circuit) on gains."""

    def __init__(self) -> None:
        self.read: list[Gains] = []

    def linear(self, x: Gains, layer: LinearLayer, shape: Shape) -> Gains:
        """Sum of squared weights times variances."""
        variances = layer.combine_squares(x.multiples.T.reshape(-1, *shape))
        return replace(x, multiples=variances.reshape(len(variances), -1).T)

    def add_constant(self, x: Gains, turns: FloatArray) -> Gains:
        """A constant has no noise."""
        return x

    def add(self, a: Gains, b: Gains) -> Gains:
        """Variances add up."""
        return Gains(
            multiples=a.multiples + b.multiples,
            under_input_key=a.under_input_key or b.under_input_key,
            under_big_key=a.under_big_key or b.under_big_key,
        )

    def subtract(self, a: Gains, b: Gains) -> Gains:
        """Variances add up."""
        return self.add(a, b)

    def select(self, x: Gains, index: IntArray) -> Gains:
        """The values at the given places."""
        return replace(x, multiples=x.multiples[index])

    def join(self, parts: Sequence[Gains]) -> Gains:
        """All parts, one after the other, under the keys of all."""
        return Gains(
            multiples=np.concatenate([part.multiples for part in parts]),
            under_input_key=any(part.under_input_key for part in parts),
            under_big_key=any(part.under_big_key for part in parts),
        )

    def lookup(
        self, x: Gains, tables: FloatArray, table_index: NDArray[np.int32], second: NDArray[np.int32] | None = None
    ) -> Gains:
        """Notes what is read; the result holds a bootstrap's own noise once."""
        self.read.append(x)
        results = len(x.multiples) if second is None else 2 * len(x.multiples)
        return Gains(multiples=np.tile([0.0, 1.0], (results, 1)), under_input_key=False, under_big_key=True)


def gains(program: Program) -> list[StageGains]:
    """Gains of every layer with look-ups, in order, and of the logits."""
    circuit = GainCircuit()
    pixels = np.tile([1.0, 0.0], (flat_size(program.input.shape), 1))
    stages = []
    for stage, result in program.walk(circuit, Gains(multiples=pixels, under_input_key=True, under_big_key=False), 2):
        if circuit.read:
            stages.append(StageGains(layer=stage.layer.name, read=tuple(circuit.read), delta=stage.delta))
            circuit.read.clear()
        logits = result
    answer = StageGains(
        layer="logits", read=(logits,), delta=program.logit_delta, refinement=program.output.refinement or 1
    )
    return [*stages, answer]


def under(stages: list[StageGains], params: ParameterSet, *, exact: bool) -> list[StageNoise]:
    """The noise that gains come to under a parameter set; with failure probabilities if ``exact``."""
    noise = CircuitNoise.predicted(params, products=len(stages) == 1)  # of logits alone: there is no look-up
    own = np.array([noise.fresh**2, noise.lookup**2])
    result = []
    for stage in stages:
        last = stage.layer == "logits"
        variances = [
            (read.multiples @ own).max()
            + (
                noise.packing / stage.refinement
                if last
                else noise.lookup_input(read.under_input_key, read.under_big_key)
            )
            ** 2
            for read in stage.read
        ]
        std = math.sqrt(max(variances))
        failure = math.log2(gaussian_tail(stage.delta / 2 / std)) if exact else None
        count = sum(len(read.multiples) for read in stage.read)
        result.append(StageNoise(layer=stage.layer, lookups=count, std_dev=std, log2_failure=failure))
    return result


def of_program(program: Program, params: ParameterSet) -> list[StageNoise]:
    """Predicted noise of every layer with look-ups, in order, and of the logits."""
    return under(gains(program), params, exact=program.profile == "exact")


def log2_failure(stages: list[StageNoise]) -> float | None:
    """log2 of the probability that any look-up or logit of one image is off, by the union bound; None in the fast profile."""
    exponents = [math.log2(stage.lookups) + stage.log2_failure for stage in stages if stage.log2_failure is not None]
    return float(np.logaddexp2.reduce(exponents)) if exponents else None


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
