"""How much of a first layer an attacker's network has, whatever the order, the length and the direction of its units."""

from __future__ import annotations

import numpy as np
from torch import nn

from ciphershift.benchmarks.extraction import students
from ciphershift.benchmarks.extraction.victims import Victim
from ciphershift.he_layers.layers import Conv2d, CReLU, Linear, ReLU
from ciphershift.he_layers.layers.layer import FloatArray


def weights_error(victim: Victim, student: nn.Sequential) -> float | None:
    """Relative error of the first layer's rows; None if the attacker's network does not begin with such a layer and a ReLU."""
    if not students.is_row(victim.program) or any(isinstance(layer, CReLU) for layer in victim.program.layers):
        return None
    return float(f"{relative_error(true_rows(victim), students.first_rows(student)):.4g}")


def true_rows(victim: Victim) -> FloatArray:
    """Weights and bias of the first layer's units, [units, weights + 1], as the attacker's network has them: a ramp is 0 to 1."""
    first = next(layer for layer in victim.program.layers if isinstance(layer, Conv2d | Linear))
    relu = next(layer for layer in victim.program.layers if isinstance(layer, ReLU))
    weight = first.weight.reshape(len(first.weight), -1).astype(np.float64)
    levels = victim.program.input.levels
    bias = relu.bias + levels * victim.center * weight.sum(1)
    slope = relu.multiplier / relu.levels
    return np.asarray(np.column_stack([levels * victim.spread * weight * slope[:, None], bias * slope]))


def relative_error(wanted: FloatArray, found: FloatArray) -> float:
    """Frobenius error of the best multiples of `found`'s rows, each used once, greatest likeness first; 0 is the whole layer, 1 nothing.

    A unit that clips is the same function mirrored (weights negated, bias b as 1 - b, output negated), so both forms count.
    """
    mirrored = -found
    mirrored[:, -1] = 1 - found[:, -1]
    lengths = np.linalg.norm(wanted, axis=1)
    likeness = np.maximum(_cosines(wanted, found), _cosines(wanted, mirrored))
    left = 0.0
    for _ in range(min(likeness.shape)):
        row, column = np.unravel_index(likeness.argmax(), likeness.shape)
        left += float(lengths[row] ** 2 * (1 - min(likeness[row, column], 1.0) ** 2))
        lengths[row] = 0.0
        likeness[row, :] = likeness[:, column] = -1.0
    return float(np.sqrt((left + (lengths**2).sum()) / (wanted**2).sum()))


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (a, b)]
    return np.asarray(np.maximum(unit[0] @ unit[1].T, 0.0))
