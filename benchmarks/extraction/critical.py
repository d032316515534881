"""A hidden layer from the kinks of its answers: along a line they are straight between the places where a unit's ramp begins or ends.

Carlini, Jagielski and Mironov (2020): at such a critical point the gradients on both sides differ by a multiple of one unit's weights, the
same for every output but for a factor, so that the differences are a matrix of rank one. All differences are taken over a step, a tiny
one where answers are exact, a wide one where they are noisy; there each query is repeated as often as the budget allows, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ciphershift.benchmarks.extraction import moments
from ciphershift.he_layers.layers.layer import FloatArray

STEPS = (1e-4, 0.25, 1.0)  # standard deviations of an input
LINE = 64  # places of a line that are asked, at most
PEAKS = 3  # kinks that are looked at on a line
POINTS = 8  # critical points for each unit
APART = 10  # steps from a critical point to where the gradients are taken, if there is room
ALIKE = 0.9  # cosine of directions that are one unit's
ONE_EDGE = 0.05  # kinks of a direction within as much are one


@dataclass(slots=True)
class Asked:
    """Answers under a budget, each the mean of `repeats`."""

    ask: Callable[[FloatArray], FloatArray]
    left: int
    repeats: int
    inputs: list[FloatArray] = field(default_factory=list)
    answers: list[FloatArray] = field(default_factory=list)

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Returns answers [n, outputs] to inputs [n, d]."""
        self.left -= len(inputs) * self.repeats
        found = self.ask(np.repeat(inputs, self.repeats, axis=0)).reshape(len(inputs), self.repeats, -1).mean(axis=1)
        self.inputs.append(inputs)
        self.answers.append(found)
        return np.asarray(found)


@dataclass(frozen=True, slots=True)
class Kink:
    """A critical point, the direction of its unit's weights, and the difference of the gradients times its share of it."""

    point: FloatArray
    direction: FloatArray
    weight: float


def rows(
    ask: Callable[[FloatArray], FloatArray], low: float, high: float, inputs: int, units: int, budget: int, step: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns rows [units or fewer, inputs + 1] of a layer whose activations clip at 0 and 1, and what was asked and answered.

    Args:
        ask: answers [n, outputs] to inputs [n, inputs].
        low, high: between which each input lies.
        inputs: length of an input.
        units: hidden units that the profile tells.
        budget: of answers.
        step: over which differences are taken.
    """
    rng = np.random.default_rng(0)
    cost = units * POINTS * (2 * (inputs + 1) + LINE // PEAKS)
    asked = Asked(ask, budget, max(1, budget // cost))
    kinks: list[Kink] = []
    while len(kinks) < POINTS * units and asked.left >= asked.repeats * (LINE + 2 * (inputs + 1)):
        kinks += _on_line(asked, rng.uniform(low, high, (2, inputs)), step)
    known = np.concatenate(asked.inputs), np.concatenate(asked.answers)
    choices = [_choices(group) for group in _grouped(kinks)[:units]]
    return moments.chosen(*known, choices), *known


def _on_line(asked: Asked, ends: FloatArray, step: float) -> list[Kink]:
    """The sharpest kinks between two points, as many as the budget allows."""
    along = ends[1] - ends[0]
    length = float(np.linalg.norm(along))
    along /= length
    places = np.linspace(0, length, int(np.clip(length / step, 8, LINE)))
    spacing = places[1]
    answers = asked(ends[0] + places[:, None] * along)
    bend = np.linalg.norm(np.diff(answers, n=2, axis=0), axis=1)  # bend[k] is at places[k + 1]
    inner = [k for k in np.argsort(-bend) if 2 <= k + 1 < len(places) - 2 and bend[k] == bend[k - 1 : k + 2].max()]
    found = []
    for k in inner[:PEAKS]:
        if asked.left < 2 * asked.repeats * (len(along) + 1):
            break
        place = _crossing(places, answers, k + 1)
        if abs(place - places[k + 1]) <= spacing:
            found.append(_kink(asked, ends[0] + place * along, min(APART * step, spacing) * along, step))
    return found


def _crossing(places: FloatArray, answers: FloatArray, at: int) -> float:
    """Where the straight lines left and right of a place meet."""
    slopes, starts = [], []
    for one, other in ((at - 2, at - 1), (at + 1, at + 2)):
        slopes.append((answers[other] - answers[one]) / (places[other] - places[one]))
        starts.append(answers[one] - slopes[-1] * places[one])
    slope, start = slopes[1] - slopes[0], starts[1] - starts[0]
    return float(-(slope @ start) / max(slope @ slope, 1e-300))


def _kink(asked: Asked, point: FloatArray, across: FloatArray, step: float) -> Kink:
    """Compares the gradients on both sides of a critical point."""
    moves = np.concatenate([np.zeros((1, len(point))), step * np.eye(len(point))])
    left, right = asked(point - across + moves), asked(point + across + moves)
    differences = (right[1:] - right[0]) - (left[1:] - left[0])  # [inputs, outputs]
    directions, sizes, _ = np.linalg.svd(differences, full_matrices=False)
    return Kink(point, directions[:, 0], float(sizes[0] ** 3 / max((sizes**2).sum(), 1e-300)) / step)


def _grouped(kinks: list[Kink]) -> list[list[Kink]]:
    """Kinks of one direction together, the group with the greatest sum of weights first."""
    groups: list[list[Kink]] = []
    for kink in sorted(kinks, key=lambda each: -each.weight):
        for group in groups:
            if abs(group[0].direction @ kink.direction) > ALIKE:
                group.append(kink)
                break
        else:
            groups.append([kink])
    return sorted(groups, key=lambda group: -sum(kink.weight for kink in group))


def _choices(group: list[Kink]) -> FloatArray:
    """Rows that a unit of these kinks may have: one if both ends of its ramp are known, else the slopes of `moments` both ways."""
    _, _, axes = np.linalg.svd(np.array([kink.weight * kink.direction for kink in group]), full_matrices=False)
    direction = axes[0]
    edges = np.sort([kink.point @ direction for kink in group])
    gaps = np.diff(edges)
    if len(gaps) and gaps.max() > ONE_EDGE:
        split = int(gaps.argmax()) + 1
        begin, end = float(np.median(edges[:split])), float(np.median(edges[split:]))
        return np.array([[*direction / (end - begin), -begin / (end - begin)]])
    edge = float(np.median(edges))
    return np.array([[*sign * slope * direction, -sign * slope * edge] for sign in (1, -1) for slope in moments.SLOPES])
