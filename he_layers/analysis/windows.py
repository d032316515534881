"""How often the inputs of a Program's look-ups leave the window in which their table is right: measured on images, and bounded for all.

A table's ramp of r turns is right on [-1/2 + r, 1/2): above the ramp it saturates, below that window it wraps (negacyclic). A share of zero
means that whatever the image, values clip and never wrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import ProgramError
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers import MaxPool2d, TopOne
from ciphershift.he_layers.layers.layer import FloatArray
from ciphershift.he_layers.layers.max_pool import RAMP
from ciphershift.he_layers.layers.table import Table
from ciphershift.he_layers.program import Program, Stage
from ciphershift.he_layers.recurrence import bounds
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit, TorusNumbers

BATCH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Of one layer with look-ups: how many inputs were seen, and the share of them outside the window."""

    layer: str
    inputs: int
    outside: float


class WatchingCircuit(NoisyCircuit):
    """Simulates, and counts the look-ups' inputs outside their window (before the noise of the look-up itself)."""

    def __init__(self, noise: CircuitNoise, rng: np.random.Generator) -> None:
        super().__init__(noise, rng)
        self.inputs = self.outside = 0

    def lookup(
        self,
        x: TorusNumbers,
        tables: FloatArray,
        table_index: NDArray[np.int32],
        second: NDArray[np.int32] | None = None,
    ) -> TorusNumbers:
        """Counts, then looks up."""
        self.inputs += x.turns.size
        self.outside += int((beyond(x.turns, tables, table_index, second) >= 0).sum())
        return super().lookup(x, tables, table_index, second)


def beyond(
    turns: FloatArray, tables: FloatArray, table_index: NDArray[np.int32], second: NDArray[np.int32] | None
) -> FloatArray:
    """How far inputs [batch, count] lie beyond the window of their table, or of a second place in it, in turns; below zero within."""
    changes = tables != tables[:, -1:]
    points = tables.shape[1]
    ramp = np.where(changes.any(axis=1), points - changes[:, ::-1].argmax(axis=1), 0) / (2 * points)
    half = points // 2 - 1  # places from -N/2 on stand to the left, up to N/2 to the right
    shift = np.zeros(len(tables)) if second is None else ((second + half) % points - half) / (2 * points)
    low, high = -0.5 + ramp + np.maximum(-shift, 0), 0.5 - np.maximum(shift, 0)
    distance: FloatArray = np.maximum(low[table_index] - turns, turns - high[table_index])
    return distance


def measure(
    program: Program, params: ParameterSet, images: NDArray[np.uint8], rng: np.random.Generator
) -> Sequence[Window]:
    """The windows of every layer with look-ups, in order, with the noise that ``params`` predicts.

    Raises:
        BadShapeError: images are not uint8 [count, C, H, W] of the Program's shape.
    """
    noise = CircuitNoise.predicted(params)
    counts: dict[str, tuple[int, int]] = {}
    for start in range(0, len(images), BATCH):
        integers = program.integers(images[start : start + BATCH]).astype(np.float64)
        circuit = WatchingCircuit(noise, rng)
        pixels = circuit.encrypt(integers.reshape(len(integers), -1) * program.input.delta)
        for stage, _ in program.walk(circuit, pixels, noise.polynomial_size):
            if circuit.inputs:
                inputs, outside = counts.get(stage.layer.name, (0, 0))
                counts[stage.layer.name] = (inputs + circuit.inputs, outside + circuit.outside)
            circuit.inputs = circuit.outside = 0
    return [Window(layer=name, inputs=inputs, outside=outside / inputs) for name, (inputs, outside) in counts.items()]


def safe_factor(program: Program) -> float:
    """Windows that are more than so many times as wide (models.compiler.answers.widened) hold the values of every input at all.

    Then the encrypted network differs from the plaintext one by noise alone.

    Interval arithmetic over the integers: of what every look-up reads, of two values that a max-pool compares, and of the logits, which
    have half a turn to each side. An upper bound: fewer may do. Noise takes its own share of a window.

    Raises:
        ProgramError: the program is of the exact profile, where both networks count modulo, or answers with the class alone.
    """
    if program.profile != "fast" or isinstance(program.layers[-1], TopOne):
        raise ProgramError(
            f"{program.name!r} is of the {program.profile} profile and ends in {program.layers[-1].kind}: "
            "windows are bounded in the fast profile, of networks that answer with logits"
        )
    factor = 0.0
    for stage, read, values in bounds(program):
        factor = max(factor, _wanted(stage, *read))
        if stage is program.stages[-1] and not isinstance(stage.layer, Table):
            factor = max(factor, float(np.abs(values).max()) * stage.output_delta / 0.5)
    return factor


def _wanted(stage: Stage, low: FloatArray, high: FloatArray) -> float:
    """The factor for one stage that reads integers from ``low`` to ``high``."""
    layer = stage.layer
    if isinstance(layer, Table):
        middle, half, bias = (values.reshape(-1, *[1] * (low.ndim - 1)) for values in (*layer.window, layer.bias))
        reach = np.maximum(high + bias - middle, middle - low - bias)
        return float((reach + half).max()) * stage.delta / 0.5
    if isinstance(layer, MaxPool2d):
        greatest, least = layer.plain(high[None].astype(np.int64)), -layer.plain(-low[None].astype(np.int64))
        return float((greatest - least).max()) * stage.delta / RAMP
    return 0.0
