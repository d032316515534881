"""The count of the dual hybrid attack against runs of the lattice-estimator, and what an exact count must do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ciphershift.benchmarks.crypto import dual_hybrid
from ciphershift.benchmarks.crypto.dual_hybrid import Secret, cheapest

UNIFORM = Secret.of("binary")


@pytest.mark.parametrize(
    ("dimension", "log2_std_dev", "printed"), [(736, -15.66, 132.06), (832, -18.05, 132.04), (2048, -48.32, 133.1)]
)
def test_the_estimators_formula_gives_what_the_estimator_prints(
    dimension: int, log2_std_dev: float, printed: float
) -> None:
    assert cheapest(dimension, log2_std_dev, UNIFORM, "estimator").bits == pytest.approx(printed, abs=0.05)


def test_an_exact_guess_is_cheaper_than_the_estimators() -> None:
    """The estimator pays 1.55 bits for a coordinate that has one."""
    exact = cheapest(736, -15.66, UNIFORM, "exact")
    assert exact.bits == pytest.approx(127.97, abs=0.05)
    assert exact.enumerated > cheapest(736, -15.66, UNIFORM, "estimator").enumerated


@pytest.mark.parametrize(
    ("dimension", "log2_std_dev", "length", "bits"), [(804, -15.40, 3, 133.15), (844, -15.30, 4, 137.43)]
)
def test_blocks_cost_what_their_patterns_are_worth(
    dimension: int, log2_std_dev: float, length: int, bits: float
) -> None:
    """The attacker guesses whole blocks, and profits from every bit of structure: more than from a uniform key with more noise."""
    counted = cheapest(dimension, log2_std_dev, Secret.of("binary", length), "exact")
    assert counted.bits == pytest.approx(bits, abs=0.1)
    assert counted.enumerated % length == 0
    assert counted.bits < cheapest(dimension, log2_std_dev, UNIFORM, "exact").bits - 4


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_blocks_moments_are_those_of_its_patterns(length: int) -> None:
    """By enumeration: variance of a bit, and the product of the covariance's eigenvalues."""
    patterns = np.vstack([np.zeros(length), np.eye(length)])
    covariance = np.atleast_2d(np.cov(patterns.T, bias=True))
    secret = Secret.of("binary", length)
    assert secret.patterns == len(patterns)
    assert covariance[0, 0] == pytest.approx(secret.variance)
    assert np.linalg.det(covariance) ** (1 / (2 * length)) == pytest.approx(secret.radius)


def test_the_script_runs_by_itself() -> None:
    run = subprocess.run(
        [sys.executable, str(Path(dual_hybrid.__file__)), "804", "-15.40", "binary", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "exact: 133.15 bits" in run.stdout
    assert "estimator: 142.92 bits" in run.stdout
