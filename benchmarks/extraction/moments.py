"""Directions of a hidden layer from moments of its answers: the tensor method for networks of depth 2.

For z standard normal and y_c = sum_i a_ci f(<w_i, z> + b_i), Stein's lemma gives E[y_c (z z^T - I)] = sum_i a_ci h_i w_i w_i^T, with h_i
the second Hermite coefficient of unit i. The slices of all outputs together are a tensor of rank `units`, whose factors are unique
(Harshman 1970) where no two units have proportional columns of a: the w_i up to order and length. Janzamin, Sedghi and Anandkumar (2015)
do so with third moments; Awasthi, Tang and Vijayaraghavan (2021) show that it works with biases. Several outputs make second moments
enough, which need fewer answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.layers.layer import FloatArray

STARTS = 8  # random combinations of slices of which the best is kept
ROUNDS = 60  # of alternating least squares
SLOPES = (0.25, 0.4)  # ramps per standard deviation that are tried for a unit,
BIASES = (-0.3, -0.1, 0.1, 0.3)  # where its ramp may begin, in ramps,
SAMPLE = 2000  # answers on which the choice is made,
SWEEPS = 2  # and how often it is made for every unit


def directions(inputs: NDArray[np.floating], answers: FloatArray, units: int, seed: int) -> FloatArray:
    """Returns unit vectors [units, d], or fewer rows if d is smaller than `units`.

    Args:
        inputs: [n, d], standard normal.
        answers: [n, outputs].
        units: hidden units that the profile tells.
        seed: of the random combinations.
    """
    z = np.asarray(inputs, dtype=np.float64)
    y = (answers - answers.mean(0)) / answers.std()
    slices = np.stack([(z * column[:, None]).T @ z / len(z) - column.mean() * np.eye(z.shape[1]) for column in y.T])
    _, vectors = np.linalg.eigh(np.einsum("cij,cjk->ik", slices, slices))
    basis = vectors[:, ::-1][:, : min(units, z.shape[1])]
    small = np.einsum("ia,cij,jb->cab", basis, slices, basis)
    rng = np.random.default_rng(seed)
    found = min((_factors(small, rng) for _ in range(STARTS)), key=lambda pair: pair[0])[1]
    rows = (basis @ found).T
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def units(inputs: NDArray[np.floating], answers: FloatArray, found: FloatArray) -> FloatArray:
    """Chooses sign, slope and bias of each direction as `chosen` does; returns rows [units, d + 1].

    Args:
        inputs: [n, d].
        answers: [n, outputs].
        found: unit vectors [units, d].
    """
    choices = [(sign * slope, bias) for sign in (1, -1) for slope in SLOPES for bias in BIASES]
    rows = [np.array([[*slope * direction, bias] for slope, bias in choices]) for direction in found]
    return chosen(inputs, answers, rows)


def chosen(inputs: NDArray[np.floating], answers: FloatArray, choices: Sequence[FloatArray]) -> FloatArray:
    """Chooses a row for each unit; returns rows [units, d + 1] of a layer whose activations clip at 0 and 1.

    Coordinate descent: each unit in its turn takes what leaves the least of the answers to an affine function of all units.

    Args:
        inputs: [n, d].
        answers: [n, outputs].
        choices: of each unit, rows [choices, d + 1].
    """
    z, y = np.asarray(inputs[:SAMPLE], dtype=np.float64), answers[:SAMPLE]
    taken = [rows[0] for rows in choices]
    shown = np.column_stack([*(_activations(z, row[None]) for row in taken), np.ones(len(z))])
    for _ in range(SWEEPS):
        for unit, rows in enumerate(choices):
            others, _ = np.linalg.qr(np.delete(shown, unit, axis=1))
            rest = y - others @ (others.T @ y)
            columns = _activations(z, rows)
            columns_rest = columns - others @ (others.T @ columns)
            gain = ((columns_rest.T @ rest) ** 2).sum(1) / np.maximum((columns_rest**2).sum(0), 1e-9)
            best = int(gain.argmax())
            taken[unit], shown[:, unit] = rows[best], columns[:, best]
    return np.array(taken)


def _activations(inputs: FloatArray, rows: FloatArray) -> FloatArray:
    """Clipped ReLUs [n, rows] of inputs [n, d]."""
    return np.asarray(np.clip(inputs @ rows[:, :-1].T + rows[:, -1], 0, 1))


def _factors(slices: FloatArray, rng: np.random.Generator) -> tuple[float, FloatArray]:
    """One try: simultaneous diagonalization of two combinations, then alternating least squares. Returns residual and columns [r, r]."""
    one, other = (np.tensordot(rng.standard_normal(len(slices)), slices, 1) for _ in range(2))
    _, columns = np.linalg.eig(one @ np.linalg.pinv(other))
    left = _unit(np.real(columns) + 1e-3 * rng.standard_normal(columns.shape))
    right = left.copy()
    for _ in range(ROUNDS):
        middle = _fitted(np.einsum("cij,ir,jr->cr", slices, left, right, optimize=True), left, right)
        left = _unit(_fitted(np.einsum("cij,cr,jr->ir", slices, middle, right, optimize=True), middle, right))
        right = _unit(_fitted(np.einsum("cij,cr,ir->jr", slices, middle, left, optimize=True), middle, left))
    middle = _fitted(np.einsum("cij,ir,jr->cr", slices, left, right, optimize=True), left, right)
    residual = float(np.linalg.norm(slices - np.einsum("cr,ir,jr->cij", middle, left, right, optimize=True)))
    return residual, left


def _fitted(products: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """The third factor by least squares, from the products of the tensor with the two others."""
    gram = (one.T @ one) * (other.T @ other)
    return np.asarray(products @ np.linalg.pinv(gram, rcond=1e-6, hermitian=True))


def _unit(columns: FloatArray) -> FloatArray:
    return np.asarray(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12))
