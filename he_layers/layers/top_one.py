"""The arg-max as an answer: one for the greatest logit, zero for all others, so that nothing else of the logits leaves the server."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError
from ciphershift.he_layers.layers.layer import Circuit, IntArray, Layer, Scale, Shape, T
from ciphershift.he_layers.layers.linear import Linear

MAX_CLASSES = 64
"""Look-ups grow with the square of the classes, and the step between two sums of comparisons shrinks with them."""
DELTA_OUT = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class TopOne(Layer):
    """Every pair of values is compared; a value that wins all its comparisons is the greatest. Of equal ones the first wins.

    Two values are compared rightly while they differ by less than half a turn.
    """

    kind: ClassVar[str] = "top_one"

    def output_shape(self, shape: Shape) -> Shape:
        """The input's. Raises BadShapeError unless it is a vector of 2 to MAX_CLASSES values."""
        if len(shape) != 1 or not 2 <= shape[0] <= MAX_CLASSES:
            raise BadShapeError(
                f"layer {self.name!r} takes a vector of 2 to {MAX_CLASSES} values, its input is {shape}"
            )
        return shape

    def output_delta(self, delta: float) -> float:
        """A quarter turn for the winner."""
        return DELTA_OUT

    def lookups(self, shape: Shape) -> int:
        """One for each pair and one for each value."""
        return shape[0] * (shape[0] - 1) // 2 + shape[0]

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: [batch, C] -> [batch, C], 1 at the first greatest value and 0 elsewhere."""
        return np.asarray(np.arange(x.shape[1]) == x.argmax(axis=1)[:, None], dtype=np.int64)

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """A step compares each pair; the comparisons of a value are added up, and a second step asks whether all were won.

        Noise: the look-up's input noise decides between values that lie closer than it; the result has only a bootstrap's own.
        """
        classes = scale.shape[0]
        contest = _contest(classes)
        pairs = contest.shape[1]
        unit = 1 / (
            2 * classes
        )  # turns of one comparison: the sum over all of a value's stays within a quarter turn of zero
        differences = circuit.linear(x, Linear(name=self.name, weight=contest.T.copy()), scale.shape)
        won = _step(circuit, differences, pairs, unit, scale)
        # A value's sum is (wins - losses) / 2 units: (C - 1) / 2 if all were won, at least one unit less otherwise.
        sums = circuit.linear(won, Linear(name=self.name, weight=contest), (pairs,))
        all_won = circuit.add_constant(sums, np.full(classes, -unit * (classes - 2) / 2))
        return circuit.add_constant(_step(circuit, all_won, classes, DELTA_OUT, scale), np.full(classes, DELTA_OUT / 2))


def _contest(classes: int) -> NDArray[np.int8]:
    """Who meets whom, int8 [C, pairs]: 1 for the first value of each pair, -1 for the second."""
    first, second = np.triu_indices(classes, 1)
    contest = np.zeros((classes, len(first)), dtype=np.int8)
    contest[first, np.arange(len(first))] = 1
    contest[second, np.arange(len(first))] = -1
    return contest


def _step(circuit: Circuit[T], x: T, count: int, height: float, scale: Scale) -> T:
    """+height/2 on [0, 1/2), -height/2 below."""
    table = np.full((1, scale.polynomial_size), height / 2)
    return circuit.lookup(x, table, np.zeros(count, dtype=np.int32))
