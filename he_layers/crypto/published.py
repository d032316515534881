"""One row of what leaves the client: an LWE or RLWE sample, the secret that hides it, its noise, and how hard it is to open.

Each type that crosses the border declares its rows itself, beside its fields (CkksCiphertext, EvaluationKeys); security.py gathers them.

The log2 of the smallest noise, as a fraction of the torus, that keeps an LWE or RLWE row of total dimension n at 128 bits is linear in n;
the modulus does not matter. The closed forms are fitted to lattice-estimator runs (docs/security.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from ciphershift.he_layers.crypto.params import CkksRing

SEAL_STD_DEV = math.sqrt(10.5)  # centred binomial over 21 + 21 bits
MINIMUM_BITS = 128.0
MINIMUM_DIMENSION = 512  # the fits were made on 512 <= n <= 2048


def _at_128(secret: str, dimension: int) -> float:
    """The log2 noise that gives 128 bits, with a guard of 0.05."""
    slope, offset = {"binary": (-0.025625, 2.5653), "ternary": (-0.025821, 1.4901)}[secret]
    return slope * dimension + offset + 0.05


def _bits_per_unit(dimension: int) -> float:
    """Bits for one more in log2 noise, from the 128-bit and the 132-bit line of binary secrets."""
    return 4 / (-0.024891 * dimension + 2.657 - _at_128("binary", dimension))


def estimated_bits(secret: str, dimension: int, log2_std_dev: float) -> float:
    """Returns the estimated classical security of a row under a dense uniform secret, 0 below the dimensions that the fits cover.

    A value far above 132 is an extrapolation.

    Args:
        secret: "binary" or "ternary".
        dimension: of the secret: n, k * N or the ring degree.
        log2_std_dev: noise as a fraction of the torus.
    """
    if dimension < MINIMUM_DIMENSION:
        return 0.0
    return max(0.0, MINIMUM_BITS + (log2_std_dev - _at_128(secret, dimension)) * _bits_per_unit(dimension))


def least_log2_std_dev(dimension: int, bits: float) -> float:
    """Smallest noise of a binary key's rows, log2 of a fraction of the torus in steps of 0.01, that has at least so many bits."""
    exact = _at_128("binary", dimension) + (bits - MINIMUM_BITS) / _bits_per_unit(dimension)
    return math.ceil(exact * 100) / 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One kind of LWE or RLWE sample that leaves the client."""

    what: str
    fields: tuple[str, ...]  # of the object's payload
    key: str  # which of ClientKeys' secrets hides it
    secret: str  # that secret's distribution, dense and uniform: "binary" or "ternary"
    dimension: int  # of the secret: n, k * N or the ring degree
    modulus_log2: float  # at which it is published
    log2_std_dev: float  # of its noise, as a fraction of the torus
    body_bits: float  # bits of the torus that are kept of the body; rounding to them only adds noise

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
        """Estimated classical security; the rounding of bodies is not counted."""
        return estimated_bits(self.secret, self.dimension, self.log2_std_dev)

    @property
    def wire_std_dev(self) -> float:
        """Noise that the holder of the secret finds in the object, rounding of the body included."""
        return math.hypot(math.exp2(self.log2_std_dev), math.exp2(-self.body_bits) / math.sqrt(12))
