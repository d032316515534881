"""Steals a network by its answers, with more and more queries, and measures what the thief has.

Every answer is drawn by `simulate`, whose distribution is that of the decrypted answer (tests/he_layers/test_distribution.py and
`ciphershift bench agreement` hold it to that), so that a hundred thousand queries take minutes. Attacks: *distillation*, a network of the
victim's topology trained on the answers; for networks of depth 2 also *moments* and *critical points*: the hidden units' directions by
the modules of these names, then the same training from there. That the last one works is shown on answers of the same network in the
clear, with and without its rounding (`oracles.CONTROLS`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ciphershift.benchmarks.extraction import critical, moments, oracles, recovery, students, victims
from ciphershift.benchmarks.extraction.oracles import Oracle
from ciphershift.benchmarks.extraction.victims import Victim
from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers import simulate
from ciphershift.he_layers.layers.layer import FloatArray

DEPTH_TWO = {"depth-2": (16, 8, 4), "depth-2-large": (48, 24, 10)}  # random networks: inputs, hidden units, classes
QUERIES = (100, 1000, 10_000, 100_000)
STEPS = 1500  # of training, in batches
RESTARTS = 2  # of plain distillation, of which the one that fits its answers best counts
AGREEMENTS = (0.9, 0.95, 0.99)


def attack(
    model: str, *, queries: Sequence[int] = QUERIES, kinds: Sequence[str] = tuple(victims.KINDS), steps: int = STEPS
) -> Iterator[dict[str, Any]]:
    """Yields a record for each kind of answer, and of random networks one for each control.

    Args:
        model: of the zoo, or one of DEPTH_TWO, a random network of one hidden layer of ReLUs with biases.
        queries: numbers of answers to steal with; no more of a network of the zoo than its data set has training images.
        kinds: of answers, of victims.KINDS.
        steps: batches of each training.

    Raises:
        UnreadableDataError: there is no card or no data of this name.
    """
    most, size = max(queries), DEPTH_TWO.get(model)
    victim = victims.of_zoo(model, most) if size is None else victims.depth_two(*size, most, seed=1)
    parameter_set = served_params(victim.program)
    shared = envelope("extraction", params=parameter_set)  # once: the code may change while hours of training run
    wanted = simulate.plain(victim.program, victim.test).argmax(axis=1)
    without = _without(victim, wanted, steps)
    kept = sorted({min(count, len(victim.queries)) for count in queries})
    for kind in kinds:
        answers = victims.ask(victim.program, kind, parameter_set, victim.queries, seed=2)
        served = victims.ask(victim.program, kind, parameter_set, victim.test, seed=3).argmax(axis=1)
        points = list(
            _points(victim, answers, wanted, kept, steps, by_class=kind == "class", by_moments=size is not None)
        )
        if size is not None and kind != "class":
            oracle = oracles.oracle(victim, victims.KINDS[kind](victim.program), parameter_set, seed=4)
            points += _critical_points(victim, oracle, wanted, kept, steps)
        yield shared | _record(victim, model, kind, served, wanted, without, points, steps)
    if size is not None:
        for control, make in oracles.CONTROLS.items():
            oracle = make(victim)
            points = list(_critical_points(victim, oracle, wanted, kept, steps))
            served = oracle(victim.read(victim.test).astype(np.float64)).argmax(axis=1)
            yield shared | _record(victim, model, control, served, wanted, None, points, steps)


def _record(
    victim: Victim,
    model: str,
    kind: str,
    served: NDArray[np.int64],
    wanted: NDArray[np.int64],
    without: float | None,
    points: Sequence[dict[str, Any]],
    steps: int,
) -> dict[str, Any]:
    return {
        "model": model,
        "program": victim.digest,
        "answer": kind,
        "coarse_levels": victims.COARSE_LEVELS if kind == "coarse" else None,
        "steps": steps,
        "weights": sum(parameter.numel() for parameter in students.untrained(victim.program, 0).parameters()),
        "served_agreement": round(float((served == wanted).mean()), 4),
        "without_queries": without,
        "points": points,
        "queries_for": {str(share): _queries_for(points, share) for share in AGREEMENTS},
    }


def _points(
    victim: Victim,
    answers: FloatArray,
    wanted: NDArray[np.int64],
    queries: Sequence[int],
    steps: int,
    *,
    by_class: bool,
    by_moments: bool,
) -> Iterator[dict[str, Any]]:
    for count in queries:
        inputs, known = victim.read(victim.queries[:count]), answers[:count]
        yield _point(victim, wanted, count, "distillation", _distilled(victim, inputs, known, steps, by_class))
        if by_moments:
            yield _point(victim, wanted, count, "moments", _by_moments(victim, inputs, known, steps, by_class))


def _critical_points(
    victim: Victim, oracle: Oracle, wanted: NDArray[np.int64], queries: Sequence[int], steps: int
) -> Iterator[dict[str, Any]]:
    first = students.untrained(victim.program, 0)[0]
    assert isinstance(first, nn.Linear), "a network of depth 2 begins with a dense layer"
    low, high = victim.read(np.array([0, 255], dtype=np.uint8))
    for count in queries:
        tries = []
        for step in critical.STEPS:
            found, inputs, answers = critical.rows(
                oracle, low, high, first.in_features, first.out_features, count, step
            )
            tries.append(_from_rows(victim, found, inputs.astype(np.float32), answers, steps, by_class=False))
        student, _ = min(tries, key=lambda pair: pair[1])
        yield _point(victim, wanted, count, "critical points", student)


def _point(
    victim: Victim, wanted: NDArray[np.int64], count: int, attack: str, student: nn.Sequential
) -> dict[str, Any]:
    agreement = (students.classes_of(student, victim.read(victim.test)) == wanted).mean()
    return {
        "queries": count,
        "attack": attack,
        "agreement": round(float(agreement), 4),
        "weights_error": recovery.weights_error(victim, student),
    }


def _distilled(
    victim: Victim, inputs: NDArray[np.float32], answers: FloatArray, steps: int, by_class: bool
) -> nn.Sequential:
    tries = [
        students.distill(students.untrained(victim.program, seed), inputs, answers, steps=steps, by_class=by_class)
        for seed in range(RESTARTS)
    ]
    known = answers.argmax(axis=1)
    return max(tries, key=lambda student: float((students.classes_of(student, inputs) == known).mean()))


def _by_moments(
    victim: Victim, inputs: NDArray[np.float32], answers: FloatArray, steps: int, by_class: bool
) -> nn.Sequential:
    first = students.untrained(victim.program, 0)[0]
    assert isinstance(first, nn.Linear), "a network of depth 2 begins with a dense layer"
    shown = np.eye(answers.shape[1])[answers.argmax(axis=1)] if by_class else answers
    found = moments.units(inputs, shown, moments.directions(inputs, shown, first.out_features, seed=0))
    return _from_rows(victim, found, inputs, shown, steps, by_class)[0]


def _from_rows(
    victim: Victim, rows: FloatArray, inputs: NDArray[np.float32], answers: FloatArray, steps: int, by_class: bool
) -> tuple[nn.Sequential, float]:
    """A network that begins with these rows, trained from there if that fits the answers better; and how badly it fits them."""
    student = students.untrained(victim.program, 0)
    first = student[0]
    assert isinstance(first, nn.Linear), "a network of depth 2 begins with a dense layer"
    with torch.no_grad():
        first.weight[: len(rows)] = torch.from_numpy(rows[:, :-1])
        first.bias[: len(rows)] = torch.from_numpy(rows[:, -1])
    students.fit_last(student, inputs, answers)
    trained = copy.deepcopy(student)
    students.distill(trained, inputs, answers, steps=steps, by_class=by_class, rate=students.RATE / 5)
    pairs = [(each, students.misfit(each, inputs, answers, by_class)) for each in (student, trained)]
    return min(pairs, key=lambda pair: pair[1])


def _without(victim: Victim, wanted: NDArray[np.int64], steps: int) -> float | None:
    """Agreement of a network that was trained on the public labels of all the attacker's images, without any query."""
    if victim.labels is None:
        return None
    labels = np.eye(len(victim.program.output.classes))[victim.labels]
    student = students.untrained(victim.program, 0)
    students.distill(student, victim.read(victim.queries), labels, steps=steps, by_class=True)
    return round(float((students.classes_of(student, victim.read(victim.test)) == wanted).mean()), 4)


def _queries_for(points: Sequence[dict[str, Any]], share: float) -> int | None:
    """The least measured number of queries after which the better attack agrees so often; None if none did."""
    return min((point["queries"] for point in points if point["agreement"] >= share), default=None)
