"""One row of what leaves the client: an LWE or RLWE sample, the secret that hides it, its noise, and how hard it is to open.

Each type that crosses the border declares its rows itself, beside its fields (CkksCiphertext, EvaluationKeys); security.py gathers them.

The log2 of the smallest noise, as a fraction of the torus, that keeps an LWE or RLWE row of total dimension n at 128 bits is linear in n;
the modulus does not matter. There are two closed forms (docs/security.md): of what the lattice-estimator prints, and of an exact count of
what an attacker has to guess, which is lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from ciphershift.he_layers.crypto.params import CkksRing

SEAL_STD_DEV = math.sqrt(10.5)  # centered binomial over 21 + 21 bits
MINIMUM_BITS = 128.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """The log2 noise, as a fraction of the torus, that gives a row 128 and 132 bits: slope and offset over the dimension of its secret."""

    least_dimension: int  # that the fit was made on
    at_128: tuple[float, float]
    at_132: tuple[float, float]

    def bits(self, dimension: int, log2_std_dev: float) -> float:
        """Bits of a row, 0 below the dimensions of the fit; far above 132 an extrapolation."""
        if dimension < self.least_dimension:
            return 0.0
        low, high = self._noise(dimension)
        return max(0.0, 128 + 4 * (log2_std_dev - low) / (high - low))

    def least(self, dimension: int, bits: float) -> float:
        """The log2 noise at which a row has so many bits."""
        low, high = self._noise(dimension)
        return low + (bits - 128) * (high - low) / 4

    def _noise(self, dimension: int) -> tuple[float, float]:
        low, high = (slope * dimension + offset for slope, offset in (self.at_128, self.at_132))
        return low, high


# Fits to runs of the lattice-estimator with a guard of 0.05 for dense secrets; for blocks to its formula of the attack that is the cheapest
# there, too, with a guard of 0.03 (docs/security.md).
_ESTIMATOR = {
    ("binary", 1): Lines(least_dimension=512, at_128=(-0.025625, 2.6153), at_132=(-0.024891, 2.657)),
    ("binary", 2): Lines(least_dimension=600, at_128=(-0.025626, 2.7646), at_132=(-0.024913, 2.8457)),
    ("binary", 3): Lines(least_dimension=600, at_128=(-0.025585, 2.9712), at_132=(-0.024759, 2.9492)),
    ("binary", 4): Lines(least_dimension=600, at_128=(-0.025626, 3.1930), at_132=(-0.024770, 3.1674)),
    ("ternary", 1): Lines(least_dimension=512, at_128=(-0.025821, 1.5401), at_132=(-0.025087, 1.5818)),
}
# Fits to benchmarks/crypto/dual_hybrid.py, where a guess costs what there is to guess.
_EXACT = {
    ("binary", 1): Lines(least_dimension=600, at_128=(-0.026010, 3.4893), at_132=(-0.025304, 3.5835)),
    ("binary", 2): Lines(least_dimension=600, at_128=(-0.026038, 4.1637), at_132=(-0.025326, 4.2434)),
    ("binary", 3): Lines(least_dimension=600, at_128=(-0.026107, 4.7340), at_132=(-0.025418, 4.8327)),
    ("binary", 4): Lines(least_dimension=600, at_128=(-0.026240, 5.2904), at_132=(-0.025469, 5.3362)),
    ("ternary", 1): Lines(least_dimension=800, at_128=(-0.026061, 1.9215), at_132=(-0.025304, 1.9621)),
}


def estimated_bits(secret: str, dimension: int, log2_std_dev: float, block_length: int = 1) -> float:
    """Returns the classical security of a row as the lattice-estimator prints it, 0 below the dimensions that the fits cover.

    A value far above 132 is an extrapolation.

    Args:
        secret: "binary" or "ternary".
        dimension: of the secret: n, k * N or the ring degree.
        log2_std_dev: noise as a fraction of the torus.
        block_length: bits of a binary secret among which at most one is 1; 1 if it is uniform.
    """
    return _ESTIMATOR[secret, block_length].bits(dimension, log2_std_dev)


def exact_bits(secret: str, dimension: int, log2_std_dev: float, block_length: int = 1) -> float:
    """Returns the classical security of a row by the exact count of guesses, 0 below the dimensions that the fits cover.

    Args: those of estimated_bits.
    """
    return _EXACT[secret, block_length].bits(dimension, log2_std_dev)


def least_log2_std_dev(dimension: int, bits: float, block_length: int = 1) -> float:
    """Smallest noise of a binary key's rows, log2 of a fraction of the torus in steps of 0.01, that has so many bits by both counts."""
    lines = (_ESTIMATOR["binary", block_length], _EXACT["binary", block_length])
    return max(math.ceil(line.least(dimension, bits) * 100) / 100 for line in lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One kind of LWE or RLWE sample that leaves the client."""

    what: str
    fields: tuple[str, ...]  # of the object's payload
    key: str  # which of ClientKeys' secrets hides it; several where bodies share a mask, each hidden by one
    secret: str  # that secret's distribution: "binary" or "ternary"
    dimension: int  # of the secret: n, k * N or the ring degree
    modulus_log2: float  # at which it is published
    log2_std_dev: float  # of its noise, as a fraction of the torus
    body_bits: float  # bits of the torus that are kept of the body; rounding to them only adds noise
    block_length: int = 1  # bits of a binary secret among which at most one is 1; 1: uniform

    @classmethod
    def of_ring(cls, what: str, *, fields: tuple[str, ...], key: str, ring: CkksRing, body_bits: float) -> Self:
        """Returns the row of RLWE samples with SEAL's error in a CKKS ring."""
        bits = math.log2(ring.modulus)
        return cls(
            what=what,
            fields=fields,
            key=key,
            secret="ternary",
            dimension=ring.ring_degree,
            modulus_log2=bits,
            log2_std_dev=math.log2(SEAL_STD_DEV) - bits,
            body_bits=body_bits,
        )

    @property
    def bits(self) -> float:
        """Estimated classical security as the lattice-estimator prints it; the rounding of bodies is not counted."""
        return estimated_bits(self.secret, self.dimension, self.log2_std_dev, self.block_length)

    @property
    def exact_bits(self) -> float:
        """Estimated classical security by the exact count of guesses; the rounding of bodies is not counted."""
        return exact_bits(self.secret, self.dimension, self.log2_std_dev, self.block_length)

    @property
    def wire_std_dev(self) -> float:
        """Noise that the holder of the secret finds in the object, rounding of the body included."""
        return math.hypot(math.exp2(self.log2_std_dev), math.exp2(-self.body_bits) / math.sqrt(12))
