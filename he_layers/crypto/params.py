"""Parameter sets: frozen, checked, named and identified by the SHA-256 of their canonical JSON.

A set fixes every size and every noise level of the pipeline, on both sides of the wire. Old sets are never edited, only superseded:
their id is in every key and ciphertext made under them. Lengths are in words or coefficients, noise in log2 of a fraction of the torus.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache

from ciphershift.errors import ParameterError, UnknownParamsError

TOY = "TOY_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gadget:
    """Decomposition into `levels` signed digits of base 2**base_log, most significant first."""

    base_log: int
    levels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CkksRing:
    """A CKKS ring with a single prime: Z_q[X] / (X**ring_degree + 1), uniform ternary secret, SEAL's error (std 3.24)."""

    ring_degree: int
    modulus: int

    @property
    def modulus_bits(self) -> int:
        """Bits of the prime: a container stores residues at this width."""
        return self.modulus.bit_length()


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterSet:
    """All that client and server must agree on.

    Raises:
        ParameterError: sizes that do not fit together; the message names field, value and bound.
    """

    name: str
    input_ring: CkksRing
    lwe_dimension: int  # n, small LWE key, uniform binary
    lwe_log2_std_dev: float  # noise of the key switch keys
    glwe_dimension: int  # k
    polynomial_size: int  # N; the big LWE key has k * N bits
    glwe_log2_std_dev: float  # noise of the bootstrapping key
    pbs: Gadget
    key_switch: Gadget
    answer_ring: CkksRing
    answer: Gadget
    input_body_bits: int  # bits kept of c0 on the wire
    bsk_body_bits: int  # bits kept of a bootstrapping key body on the wire
    answer_bits: int  # bits kept of a packed answer's words on the wire
    flooding_log2_std_dev: float  # extra noise on every logit, so that two answers to one request differ
    grouping_factor: int = 1  # bits of the small key that one step of a bootstrap takes: 1 or 2

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        for ring in (self.input_ring, self.answer_ring):
            _power_of_two("ring_degree", ring.ring_degree, 1024, 8192)
            if ring.modulus % (2 * ring.ring_degree) != 1:
                raise ParameterError(f"{self.name}: modulus {ring.modulus} is not 1 modulo {2 * ring.ring_degree}")
        _power_of_two("polynomial_size", self.polynomial_size, 128, 8192)
        if self.big_dimension > self.answer_ring.ring_degree:
            raise ParameterError(
                f"{self.name}: k * N = {self.big_dimension} exceeds the answer ring's degree {self.answer_ring.ring_degree}"
            )
        if self.big_dimension == self.input_ring.ring_degree:
            raise ParameterError(
                f"{self.name}: k * N = {self.big_dimension} is the input ring's degree, too; a ciphertext's dimension must tell its key"
            )
        if self.grouping_factor not in (1, 2) or self.lwe_dimension % self.grouping_factor:
            raise ParameterError(
                f"{self.name}: grouping_factor = {self.grouping_factor} is not 1 or 2 and a divisor of lwe_dimension = {self.lwe_dimension}"
            )
        if self.key_switch.base_log * self.key_switch.levels > 31:
            raise ParameterError(f"{self.name}: the key switch decomposes more than 31 bits")
        if self.key_switch.base_log > 6:
            raise ParameterError(
                f"{self.name}: the key switch's base is 2^{self.key_switch.base_log}, its tables hold 2^6 at most"
            )

    @property
    def big_dimension(self) -> int:
        """Dimension k * N of the LWE ciphertexts that look-ups return."""
        return self.glwe_dimension * self.polynomial_size

    @property
    def ggsw_rows(self) -> int:
        """Rows of one bootstrapping key entry, each with one body polynomial on the wire."""
        return (self.glwe_dimension + 1) * self.pbs.levels

    @property
    def bsk_entries(self) -> int:
        """GGSW ciphertexts of the bootstrapping key: one for every bit, or three for every two bits (ClientKeys.bsk_bits)."""
        return self.lwe_dimension // self.grouping_factor * ((1 << self.grouping_factor) - 1)

    @property
    def answer_key_rows(self) -> int:
        """Rows of the answer key: one key switch, log2 N automorphisms, one public key."""
        return self.answer_ring.ring_degree.bit_length() * self.answer.levels + 1

    @property
    def id(self) -> str:
        """SHA-256 of the canonical JSON, in hex; a field that is younger than the first sets is left out at its default."""
        return _digest(self)

    @property
    def is_toy(self) -> bool:
        """Whether this set is below 128 bits, for tests only."""
        return self.name.startswith(TOY)


def canonical_json(params: ParameterSet) -> str:
    """Returns what a set's id is the SHA-256 of."""
    fields = asdict(params)
    if params.grouping_factor == 1:
        del fields["grouping_factor"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@cache
def _digest(params: ParameterSet) -> str:
    return hashlib.sha256(canonical_json(params).encode()).hexdigest()


def _power_of_two(field: str, value: int, least: int, most: int) -> None:
    if value & (value - 1) or not least <= value <= most:
        raise ParameterError(f"{field} = {value} is not a power of two in {least}..{most}")


# Published rows, closest to the limit first (ciphershift bench security): key switch keys n=736 at 2^-15.66 and bootstrapping key
# k*N=2048 at 2^-48.32 on the 132-bit line of docs/security.md; answer key 2048 at 50 bits; upload 1024 at 22 bits. A look-up's input
# carries noise of 4.8e-3 of the torus: made for networks trained with it, not for exact integers.
FAST_N512 = ParameterSet(
    name="FAST_N512",
    input_ring=CkksRing(ring_degree=1024, modulus=4188161),
    lwe_dimension=736,
    lwe_log2_std_dev=-15.66,
    glwe_dimension=4,
    polynomial_size=512,
    glwe_log2_std_dev=-48.32,
    pbs=Gadget(base_log=23, levels=1),
    key_switch=Gadget(base_log=2, levels=6),
    answer_ring=CkksRing(ring_degree=2048, modulus=1125899906826241),
    answer=Gadget(base_log=16, levels=2),
    input_body_bits=14,
    bsk_body_bits=48,
    answer_bits=20,
    flooding_log2_std_dev=-12.0,
)

# The same noise within a thousandth, a quarter less time and a key half as large again: two bits of the small key at a time
# (docs/decisions/0050-two-key-bits-at-a-time.md). Networks made for FAST_N512 run under it as they are.
FAST_N512_PAIRS = replace(FAST_N512, name="FAST_N512_PAIRS", grouping_factor=2, bsk_body_bits=49)

# For the exact profile (docs/decisions/0006-two-profiles.md): integers modulo 56 are read with a failure probability below 2^-40 for each
# look-up of mnist-exact. One polynomial of 2048 points, since the modulus switch's noise is a fraction of 1 / 2N; answers flooded less,
# since logits are read modulo 256. Published rows on the 132-bit line, as above.
EXACT_N2048 = replace(
    FAST_N512,
    name="EXACT_N2048",
    lwe_dimension=832,
    lwe_log2_std_dev=-18.05,
    glwe_dimension=1,
    polynomial_size=2048,
    glwe_log2_std_dev=-48.31,
    key_switch=Gadget(base_log=2, levels=8),
    flooding_log2_std_dev=-14.0,
)

# Tests only, refused by servers: everything as in FAST_N512 but for a short key and a small ring, hence fast and insecure.
TOY_N128 = replace(FAST_N512, name="TOY_N128", lwe_dimension=64, lwe_log2_std_dev=-20.0, polynomial_size=128)

# The same for the exact profile: one long polynomial and a finer key switch, so that integers modulo 32 are read safely.
TOY_EXACT_N512 = replace(
    TOY_N128,
    name="TOY_EXACT_N512",
    glwe_dimension=1,
    polynomial_size=512,
    key_switch=Gadget(base_log=2, levels=9),
)

SETS = {params.name: params for params in (FAST_N512_PAIRS, FAST_N512, EXACT_N2048, TOY_N128, TOY_EXACT_N512)}
DEFAULT = FAST_N512_PAIRS.name


def get(name_or_id: str) -> ParameterSet:
    """Returns the registered set of this name or id.

    Raises:
        UnknownParamsError: none is registered under it.
    """
    for params in SETS.values():
        if name_or_id in (params.name, params.id):
            return params
    raise UnknownParamsError(f"no parameter set {name_or_id!r}; known are {', '.join(SETS)}")
