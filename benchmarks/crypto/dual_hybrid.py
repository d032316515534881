"""The cheapest known attack on a published row, counted twice: with the lattice-estimator's formula, and with exact numbers of candidates.

The attack is the dual hybrid of MATZOV ("Report on the security of LWE", 2022): some coordinates of the secret are enumerated, some are
found by a Fourier transform modulo p, and short dual vectors of the lattice of the others tell right from wrong guesses. Costs of the
reduction are those of the lattice-estimator's model MATZOV (commit 27a581b). Two countings:

- ``estimator``: its ``dual_hybrid``. A secret is modeled as Gaussian of the same deviation, also for the price of a guess (1.55 bits for a
  uniform bit), and as many samples are used as the secret has coordinates.
- ``exact``: a guess costs what there is to guess: one bit for a uniform bit, log2(l + 1) for a block of l bits of which at most one is 1,
  log2(3) for a ternary coordinate. The number of samples is free. A block's bits are correlated; the attacker is given the ellipsoid's
  mean radius, (l + 1)^(-(l + 1) / 2l), in place of their deviation (Dachman-Soled, Ducas, Gong, Rossi, eprint 2020/292).

Both are for the attacker where the theory is open: dual vectors are taken as independent (doubted by Ducas and Pulles, eprint 2023/302).

It needs NumPy alone: `python benchmarks/crypto/dual_hybrid.py 804 -15.40 binary 3` prints both counts, and what the attack consists of, for
dimension, log2 of the noise as a fraction of the torus, secret (binary or ternary) and block length (1: uniform).
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Counting = Literal["estimator", "exact"]
Grid = NDArray[np.float64]

SIEVE_SLOPE, SIEVE_OFFSET = 0.29613500308205365, 20.387885985467914
"""log2 of the gates of a sieve in dimension d is a d + b: list decoding, classical (Albrecht, Gheorghiu, Postlethwaite, Schanck, 2020)."""
PROGRESSIVE = 1 / (1 - 2**-SIEVE_SLOPE)
"""All sieves of growing dimension, in sieves of the last."""
MULTIPLICATION, ADDITION = 1024.0, 160.0
"""Gates of one operation of the Fourier transform."""
BLOCK_SIZES = np.arange(280.0, 500.0)
MOST_ENUMERATED, MOST_TRANSFORMED = 141, 141
MODULI = (2, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A distribution of secret coordinates, as the attack sees it.

    Attributes:
        unit: coordinates that are guessed together.
        patterns: equally likely values of a unit.
        variance: of one coordinate.
        radius: geometric mean of the unit's deviations along the axes of its covariance.
    """

    unit: int
    patterns: int
    variance: float
    radius: float

    @classmethod
    def of(cls, name: str, block_length: int = 1) -> Secret:
        """Uniform "ternary", or "binary" in blocks: the covariance of a block has eigenvalues 1/(l+1), and once 1/(l+1)^2."""
        if name == "ternary":
            return cls(unit=1, patterns=3, variance=2 / 3, radius=math.sqrt(2 / 3))
        mean = 1 / (block_length + 1)
        radius = mean ** ((block_length + 1) / (2 * block_length))
        return cls(unit=block_length, patterns=block_length + 1, variance=mean * (1 - mean), radius=radius)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """The cheapest attack found: log2 of its gates, and how it is composed."""

    bits: float
    block_size: int
    enumerated: int
    transformed: int
    modulus: int
    samples: int


@cache
def cheapest(dimension: int, log2_std_dev: float, secret: Secret, counting: Counting) -> Attack:
    """Returns the cheapest attack found on LWE with this noise, log2 of a fraction of the torus.

    The estimator goes through enumerated and transformed coordinates in steps of five. The exact count goes through both in steps of
    four (or of a block), and then through every one (or every block) around the best.
    """
    step = 5 if counting == "estimator" else 4 if secret.unit == 1 else secret.unit
    everything = np.arange(0, MOST_ENUMERATED, step), np.arange(0, MOST_TRANSFORMED, step)
    attacks = [_cheapest(dimension, log2_std_dev, secret, counting, p, *everything) for p in MODULI]
    best = min(attacks, key=lambda attack: attack.bits)
    if counting == "estimator" or secret.unit > 1:
        return best
    near = [np.arange(max(0, at - 8), at + 9) for at in (best.enumerated, best.transformed)]
    return _cheapest(dimension, log2_std_dev, secret, counting, best.modulus, *near)


def _cheapest(
    dimension: int,
    log2_std_dev: float,
    secret: Secret,
    counting: Counting,
    p: int,
    enumerated_counts: NDArray[np.int64],
    transformed_counts: NDArray[np.int64],
) -> Attack:
    enumerated = enumerated_counts.astype(np.float64)[:, None, None]
    transformed = transformed_counts.astype(np.float64)[:, None]
    deviation = math.sqrt(secret.variance) if counting == "estimator" else secret.radius
    per_coordinate = secret.patterns ** (1 / secret.unit)

    root = _root_hermite(BLOCK_SIZES)
    lattice = dimension - enumerated - transformed
    samples = dimension + 0 * lattice
    if counting == "exact":  # the dual vectors are shortest for sqrt(lattice ln(deviation / noise) / ln root) columns
        samples = np.sqrt(lattice * (math.log(deviation) - log2_std_dev * math.log(2)) / np.log(root)) - lattice
        samples = np.clip(np.ceil(samples), 50, 4 * dimension)
    columns = samples + lattice
    length = (
        (samples * log2_std_dev * math.log(2) + lattice * math.log(deviation)) / columns
        + np.log(root) * (columns - BLOCK_SIZES)
        + np.log(BLOCK_SIZES / (2 * math.pi * math.e)) / 2
        + math.log(4 / 3) / 2
    )  # natural logarithm of <dual vector, noise> in turns

    if counting == "estimator":
        guessed = enumerated * _gaussian_entropy_bits(deviation) + transformed * math.log(p)
        alpha = (math.pi * deviation) ** 2
        factor = 2 / math.sqrt(math.e) * math.exp(8 * alpha * math.exp(-2 * alpha) * math.tanh(alpha))
        log2_guesses = enumerated * (_gaussian_entropy_bits(deviation) + math.log2(factor))
        log2_guesses = log2_guesses - math.log2(1 - math.exp(-1 / (2 * deviation**2)))
    else:
        log2_guesses = enumerated * math.log2(per_coordinate)
        guessed = enumerated * math.log(per_coordinate) + transformed * math.log(min(per_coordinate, p))
    loss = 4 * np.exp(2 * length) * math.pi**2 + transformed / 3 * (math.pi * deviation / p) ** 2
    needed = np.exp(np.minimum(loss, 400)) * np.maximum(guessed + math.log(2), math.log(2))  # dual vectors

    free = _free_dimensions(BLOCK_SIZES)
    grown = (
        np.log2((columns - BLOCK_SIZES) * PROGRESSIVE) / SIEVE_SLOPE
    )  # as dear as all of the reduction's sieves together
    sieved = np.minimum(columns, np.floor(BLOCK_SIZES - np.floor(free) + grown))
    reduction = columns**3 + PROGRESSIVE**2 * (columns - BLOCK_SIZES) * _sieve(BLOCK_SIZES - free)
    sampling = np.ceil(needed / np.floor(2 ** (0.2075 * sieved))) * (reduction + PROGRESSIVE * _sieve(sieved))
    transform = MULTIPLICATION * transformed * float(p) ** (transformed + 1)
    gates = sampling + 2**log2_guesses * (transform + 4 * ADDITION * needed)
    best = np.unravel_index(np.argmin(gates), gates.shape)
    return Attack(
        bits=float(np.log2(gates[best])),
        block_size=int(BLOCK_SIZES[best[2]]),
        enumerated=int(enumerated[best[0], 0, 0]),
        transformed=int(transformed[best[1], 0]),
        modulus=p,
        samples=int(np.broadcast_to(samples, gates.shape)[best]),
    )


def _root_hermite(block_size: Grid) -> Grid:
    """Chen's thesis, 2013."""
    volume = block_size / (2 * math.pi * math.e) * (math.pi * block_size) ** (1 / block_size)
    return np.asarray(volume ** (1 / (2 * (block_size - 1))))


def _free_dimensions(block_size: Grid) -> Grid:
    """Ducas, Eurocrypt 2018."""
    return np.asarray(block_size * math.log(4 / 3) / np.log(block_size / (2 * math.pi * math.e)))


def _sieve(dimension: Grid) -> Grid:
    return np.asarray(2 ** (SIEVE_SLOPE * dimension + SIEVE_OFFSET))


def _gaussian_entropy_bits(deviation: float) -> float:
    """MATZOV's entropy of a discrete Gaussian coordinate."""
    return (0.5 + math.log(math.sqrt(2 * math.pi) * deviation / math.tanh((math.pi * deviation) ** 2))) / math.log(2)


def main(dimension: str, log2_std_dev: str, name: str, block_length: str = "1") -> None:
    """Prints both counts of one row."""
    for counting in get_args(Counting):
        attack = cheapest(int(dimension), float(log2_std_dev), Secret.of(name, int(block_length)), counting)
        sys.stdout.write(f"{counting}: {attack.bits:.2f} bits, {asdict(attack)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
