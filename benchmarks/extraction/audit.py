"""Steals a network by its answers, with more and more queries, and measures what the thief has.

Every answer is drawn by `simulate`, whose distribution is that of the decrypted answer (tests/he_layers/test_distribution.py and
`ciphershift bench agreement` hold it to that), so that a hundred thousand queries take minutes. Attacks: *distillation*, a network of the
victim's topology trained on the answers; for networks of depth 2 also *moments*: the hidden units' directions by `moments`, then the same
training from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ciphershift.benchmarks.extraction import moments, recovery, students, victims
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


def attack(model: str, *, queries: Sequence[int] = QUERIES, steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """Yields a record for each kind of answer.

    Args:
        model: of the zoo, or one of DEPTH_TWO, a random network of one hidden layer of ReLUs with biases.
        queries: numbers of answers to steal with; no more of a network of the zoo than its data set has training images.
        steps: batches of each training.

    Raises:
        ProgramError: the network is no row of convolutions, dense layers, ReLUs and pools.
    """
    most, size = max(queries), DEPTH_TWO.get(model)
    victim = victims.of_zoo(model, most) if size is None else victims.depth_two(*size, most, seed=1)
    parameter_set = served_params(victim.program)
    shared = envelope("extraction", params=parameter_set)  # once: the code may change while hours of training run
    wanted = simulate.plain(victim.program, victim.test).argmax(axis=1)
    without = _without(victim, wanted, steps)
    kept = sorted({min(count, len(victim.queries)) for count in queries})
    for kind in victims.KINDS:
        answers = victims.ask(victim.program, kind, parameter_set, victim.queries, seed=2)
        served = victims.ask(victim.program, kind, parameter_set, victim.test, seed=3).argmax(axis=1)
        points = list(
            _points(victim, answers, wanted, kept, steps, by_class=kind == "class", by_moments=size is not None)
        )
        yield shared | {
            "model": model,
            "program": victim.program.digest,
            "answer": kind,
            "coarse_levels": victims.COARSE_LEVELS if kind == "coarse" else None,
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
    rows, test = recovery.true_rows(victim), victim.read(victim.test)
    for count in queries:
        inputs, known = victim.read(victim.queries[:count]), answers[:count]
        found = {"distillation": _distilled(victim, inputs, known, steps, by_class)}
        if by_moments:
            found["moments"] = _by_moments(victim, inputs, known, steps, by_class)
        for name, student in found.items():
            yield {
                "queries": count,
                "attack": name,
                "agreement": round(float((students.classes_of(student, test) == wanted).mean()), 4),
                "weights_error": round(recovery.relative_error(rows, students.first_rows(student)), 4),
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
    student = students.untrained(victim.program, 0)
    first = student[0]
    assert isinstance(first, nn.Linear), "a network of depth 2 begins with a dense layer"
    shown = np.eye(answers.shape[1])[answers.argmax(axis=1)] if by_class else answers
    found = moments.units(inputs, shown, moments.directions(inputs, shown, first.out_features, seed=0))
    with torch.no_grad():
        first.weight[: len(found)] = torch.from_numpy(found[:, :-1])
        first.bias[: len(found)] = torch.from_numpy(found[:, -1])
    students.fit_last(student, inputs, shown)
    return students.distill(student, inputs, answers, steps=steps, by_class=by_class, rate=students.RATE / 5)


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
