"""How often the inputs of a Program's look-ups leave the window in which their table is right, measured on images.

A table's ramp of r turns is right on [-1/2 + r, 1/2): above the ramp it saturates, below that window it comes up again. A share of zero
means that whatever the image, values clip and never wrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers.layer import FloatArray
from ciphershift.he_layers.program import Program
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

    def __init__(self, levels: CircuitNoise, rng: np.random.Generator) -> None:
        super().__init__(levels, rng)
        self.inputs = self.outside = 0

    def lookup(self, x: TorusNumbers, tables: FloatArray, table_index: NDArray[np.int32]) -> TorusNumbers:
        """Counts, then looks up."""
        self.inputs += x.turns.size
        self.outside += int((beyond(x.turns, tables, table_index) >= 0).sum())
        return super().lookup(x, tables, table_index)


def beyond(turns: FloatArray, tables: FloatArray, table_index: NDArray[np.int32]) -> FloatArray:
    """How far inputs [batch, count] lie beyond the window of their table, in turns; below zero within it."""
    changes = tables != tables[:, -1:]
    points = tables.shape[1]
    ramp = np.where(changes.any(axis=1), points - changes[:, ::-1].argmax(axis=1), 0) / (2 * points)
    distance: FloatArray = np.maximum(-0.5 + ramp[table_index] - turns, turns - 0.5)
    return distance


def measure(
    program: Program, params: ParameterSet, images: NDArray[np.uint8], rng: np.random.Generator
) -> Sequence[Window]:
    """The windows of every layer with look-ups, in order, with the noise that ``params`` predicts.

    Raises:
        BadShapeError: images are not uint8 [count, C, H, W] of the Program's shape.
    """
    levels = CircuitNoise.predicted(params)
    counts: dict[str, tuple[int, int]] = {}
    for start in range(0, len(images), BATCH):
        integers = program.integers(images[start : start + BATCH]).astype(np.float64)
        circuit = WatchingCircuit(levels, rng)
        pixels = circuit.encrypt(integers.reshape(len(integers), -1) * program.input.delta)
        for stage, _ in program.walk(circuit, pixels, levels.polynomial_size):
            if circuit.inputs:
                inputs, outside = counts.get(stage.layer.name, (0, 0))
                counts[stage.layer.name] = (inputs + circuit.inputs, outside + circuit.outside)
            circuit.inputs = circuit.outside = 0
    return [Window(layer=name, inputs=inputs, outside=outside / inputs) for name, (inputs, outside) in counts.items()]
