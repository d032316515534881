"""Crafted inputs: how far can an image drive the encrypted network from the plaintext one?

In the fast profile a sum that leaves its look-up's window wraps on the torus, where the plaintext network clips. Training keeps the sums of
ordinary images inside; nothing keeps those of an image that was made for it. This search makes such images: an evolution strategy on
pixels, whose goal is the greatest difference of a logit, and on the way there the greatest distance beyond a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis.windows import beyond, safe_factor
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.layers.layer import FloatArray
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit, TorusNumbers
from ciphershift.models.compiler import answers
from ciphershift.models.training.data import Split

SEEDS = 100
"""Test images that a search begins with."""
PARENTS, CHILDREN = 16, 6
TEST_INPUTS = 2000
"""Test inputs on which the accuracy is simulated, at most."""
CONFIRMATIONS = 100
"""Simulations with noise of each image that was found."""
Images = NDArray[np.uint8]


class _Circuit(NoisyCircuit):
    """Without noise; keeps each image's greatest distance beyond a window."""

    def __init__(self, polynomial_size: int) -> None:
        super().__init__(CircuitNoise.silent(polynomial_size), np.random.default_rng(0))
        self.worst: FloatArray | float = -np.inf

    def lookup(
        self,
        x: TorusNumbers,
        tables: FloatArray,
        table_index: NDArray[np.int32],
        second: NDArray[np.int32] | None = None,
    ) -> TorusNumbers:
        self.worst = np.maximum(self.worst, beyond(x.turns, tables, table_index, second).max(axis=1))
        return super().lookup(x, tables, table_index, second)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgment:
    """Of each image: greatest difference of a logit; greatest distance beyond a window, in turns; both networks' classes; all [count]."""

    difference: FloatArray
    beyond: FloatArray
    plain: NDArray[np.int64]
    encrypted: NDArray[np.int64]


def judge(program: Program, images: Images, polynomial_size: int) -> Judgment:
    """Compares the circuit without noise with the plaintext network.

    Raises:
        BadShapeError: images are not uint8 [count, ...] of the Program's shape.
    """
    circuit = _Circuit(polynomial_size)
    integers = program.integers(images).astype(np.float64)
    values = circuit.encrypt(integers.reshape(len(images), -1) * program.input.delta)
    *_, (_, last) = program.walk(circuit, values, polynomial_size)
    encrypted = program.logits(circuit.decrypt(last, program.output))
    plain = simulate.plain(program, images) * program.output.scales
    return Judgment(
        difference=np.abs(encrypted - plain).max(axis=1),
        beyond=np.broadcast_to(circuit.worst, len(images)),
        plain=plain.argmax(axis=1),
        encrypted=encrypted.argmax(axis=1),
    )


def search(program: Program, seeds: Images, *, generations: int, rng: np.random.Generator) -> Images:
    """The images [PARENTS, ...] with the greatest differences that were found, the greatest first.

    Args:
        program: the network.
        seeds: images to begin with, one for each parent or more.
        generations: each evaluates PARENTS * CHILDREN images.
        rng: draws the changes.
    """
    size = params.get(program.params).polynomial_size
    parents = seeds[:PARENTS]
    for _ in watched(range(generations), f"{program.name}: search", generations):
        children = np.concatenate([parents] + [_changed(parents, rng) for _ in range(CHILDREN)])
        judged = judge(program, children, size)
        goal = np.where(judged.beyond >= 0, 1.0 + judged.difference, judged.beyond)
        parents = children[np.argsort(-goal, kind="stable")[:PARENTS]]
    return parents


def _changed(parents: Images, rng: np.random.Generator) -> Images:
    """Each image with a window of it set to one value, inverted, or taken from another parent."""
    children = parents.copy()
    for child in children:
        window = (slice(None), *(slice(*sorted(rng.integers(0, side + 1, 2))) for side in child.shape[1:]))
        match rng.integers(0, 4):
            case 0:
                child[window] = rng.choice(np.array([0, 255], dtype=np.uint8))
            case 1:
                child[window] = 255 - child[window]
            case 2:
                child[window] = parents[rng.integers(len(parents))][window]
            case _:
                flips = rng.random(child.shape) < 0.02
                child[flips] = 255 - child[flips]
    return children


def measure(program: Program, test: Split, *, generations: int, windows: float = 1.0) -> dict[str, Any]:
    """Returns what a search finds, from test inputs on, and the accuracy with noise.

    Args:
        program: the network.
        test: its data.
        generations: of the search.
        windows: how many times as wide its windows are made before (models.compiler.answers.widened).
    """
    shown = answers.widened(program, windows) if windows > 1 else program
    part = test.part(0, TEST_INPUTS)
    found = simulate.run(shown, params.get(shown.params), part.images, np.random.default_rng(0)).argmax(axis=1)
    return worst_inputs(shown, test.images[:SEEDS], generations=generations) | {
        "model": program.name,
        "windows": windows,
        "safe_windows": round(safe_factor(program), 3) if program.profile == "fast" else None,
        "accuracy": round(float((found == part.labels).mean()), 4),
        "accuracy_inputs": len(part.labels),
    }


def worst_inputs(program: Program, seeds: Images, *, generations: int, seed: int = 0) -> dict[str, Any]:
    """Returns what the search found, and what the seeds themselves give.

    ``difference``: the greatest of a logit, in standard deviations of the logits over the seeds; ``flips``: images whose class differs
    without noise; ``reproducible``: those of them whose class differs in nine of ten simulations with noise.
    """
    size = params.get(program.params).polynomial_size
    spread = float((simulate.plain(program, seeds) * program.output.scales).std())
    before = judge(program, seeds, size)
    found = search(program, seeds, generations=generations, rng=np.random.default_rng(seed))
    after = judge(program, found, size)
    repeated = np.repeat(found, CONFIRMATIONS, axis=0)
    noisy = simulate.run(program, params.get(program.params), repeated, np.random.default_rng(seed)).argmax(axis=1)
    differs = (noisy.reshape(len(found), -1) != after.plain[:, None]).mean(axis=1)
    return envelope("crafted") | {
        "model": program.name,
        "params": program.params,
        "profile": program.profile,
        "tried": generations * PARENTS * (CHILDREN + 1),
        "ordinary": {
            "difference": round(float(before.difference.max()) / spread, 4),
            "flips": int((before.plain != before.encrypted).sum()),
            "images": len(seeds),
        },
        "crafted": {
            "difference": round(float(after.difference.max()) / spread, 4),
            "beyond_turns": round(float(after.beyond.max()), 4),
            "flips": int((after.plain != after.encrypted).sum()),
            "reproducible": int((differs >= 0.9).sum()),
            "images": len(found),
        },
    }
