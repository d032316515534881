"""How strong every published row is: closed forms fitted to lattice-estimator runs (docs/security.md).

The log2 of the smallest noise, as a fraction of the torus, that keeps an LWE or RLWE row of total dimension n at 128 bits is linear in n;
the modulus does not matter. The slope of bits over log2 noise is taken between the 128-bit and the 132-bit line of binary secrets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from he_layers.crypto.errors import InsecureParamsError
from he_layers.crypto.params import ParameterSet

SEAL_STD_DEV = math.sqrt(10.5)  # centred binomial over 21 + 21 bits
MINIMUM_BITS = 128.0
MINIMUM_DIMENSION = 512  # the fits were made on 512 <= n <= 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One kind of LWE or RLWE sample that leaves the client."""

    what: str
    secret: str  # "binary" or "ternary", dense uniform
    dimension: int  # of the secret: n, k * N or the ring degree
    modulus_log2: float  # at which it is published
    log2_std_dev: float  # fraction of the torus

    @property
    def bits(self) -> float:
        """Estimated classical security; a value far above 132 is an extrapolation."""
        binary_128 = -0.025625 * self.dimension + 2.5653 + 0.05
        binary_132 = -0.024891 * self.dimension + 2.657
        at_128 = binary_128 if self.secret == "binary" else -0.025821 * self.dimension + 1.4901 + 0.05
        return MINIMUM_BITS + 4 * (self.log2_std_dev - at_128) / (binary_132 - binary_128)


def published_rows(params: ParameterSet) -> list[PublishedRow]:
    """Returns one row per kind of object that leaves the client under these parameters."""
    small = {
        "secret": "binary",
        "dimension": params.lwe_dimension,
        "modulus_log2": 32.0,
        "log2_std_dev": params.lwe_log2_std_dev,
    }

    def ring(what: str, degree: int, modulus: int) -> PublishedRow:
        bits = math.log2(modulus)
        return PublishedRow(
            what=what,
            secret="ternary",
            dimension=degree,
            modulus_log2=bits,
            log2_std_dev=math.log2(SEAL_STD_DEV) - bits,
        )

    return [
        ring("CKKS ciphertext of the input", params.input_ring.ring_degree, params.input_ring.modulus),
        PublishedRow(what="key switch key, CKKS to small", **small),  # type: ignore[arg-type]
        PublishedRow(what="key switch key, big to small", **small),  # type: ignore[arg-type]
        PublishedRow(
            what="bootstrapping key",
            secret="binary",
            dimension=params.big_dimension,
            modulus_log2=64.0,
            log2_std_dev=params.glwe_log2_std_dev,
        ),
        ring("answer key and public key", params.answer_ring.ring_degree, params.answer_ring.modulus),
    ]


def security_bits(params: ParameterSet) -> float:
    """Returns the bits of the weakest published row; 0 below the dimensions that the closed forms cover."""
    rows = published_rows(params)
    return 0.0 if any(row.dimension < MINIMUM_DIMENSION for row in rows) else min(row.bits for row in rows)


def require_secure(params: ParameterSet) -> None:
    """Refuses a set with a row below 128 bits.

    Raises:
        InsecureParamsError: names the first row that is too weak, and its noise.
    """
    for row in published_rows(params):
        if row.dimension < MINIMUM_DIMENSION or row.bits < MINIMUM_BITS:
            raise InsecureParamsError(
                f"{params.name}: {row.what} (dimension {row.dimension}, noise 2^{row.log2_std_dev:.2f}) has "
                f"{max(row.bits, 0):.1f} bits, need {MINIMUM_BITS:.0f}; raise the dimension or the noise"
            )


def least_log2_std_dev(dimension: int, bits: float) -> float:
    """Smallest noise of a binary key's rows, log2 of a fraction of the torus in steps of 0.01, that has at least so many bits."""
    row = PublishedRow(what="", secret="binary", dimension=dimension, modulus_log2=64, log2_std_dev=0.0)
    per_unit = row.bits - replace(row, log2_std_dev=-1.0).bits
    return math.ceil(-(row.bits - bits) / per_unit * 100) / 100
