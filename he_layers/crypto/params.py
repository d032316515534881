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
MOST_BLOCK_LENGTH = 4
"""Longest block of a small key: from 5 on, attacks that meet in the middle are the cheapest (docs/security.md)."""


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

    A bootstrap takes the small key in ``steps``, each with ``bits_per_step`` bits of it, in order, and ``ggsws_per_step`` GGSW ciphertexts,
    the next ones of the bootstrapping key. With acc [] C for the external product, a step with exponents a_1 ... (the words of the
    switched mask that belong to its bits) does acc <- acc + sum_c factor_c (acc [] ggsw_c), by one of two rules:

    - each bit alone (``ggsws_per_step == bits_per_step``): ggsw_c encrypts bit c, factor_c = X^a_c - 1. That is right for a single bit,
      and for a whole block of a block-binary key (Lee, Min, Seo, Song, eprint 2023/958), of which at most one bit is 1;
    - a pair (``grouping_factor == 2``): three GGSWs encrypt s (1 - t), (1 - s) t and s t; the factors are X^a - 1, X^b - 1, X^(a + b) - 1.

    With ``bodies`` of 2, two ciphertexts share a mask while they are looked up ("Sharing the Mask", Bergerat et al., TCHES 2025/4), and
    with it key switch, exponents and most of a bootstrap; each GGSW then holds a bit of each of two small keys. A ring key switch brings
    any two to one mask before (``merge_entries``), another gives the second a mask under the first key after (``split_entries``).

    Raises:
        ParameterError: sizes that do not fit together; the message names field, value and bound.
    """

    name: str
    input_ring: CkksRing
    lwe_dimension: int  # n, small LWE key, binary
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
    grouping_factor: int = 1  # uniform bits of the small key that one step of a bootstrap takes: 1 or 2
    block_length: int = (
        1  # the small key is blocks of so many bits: no one or a single one, all alike likely; 1: uniform bits
    )
    bodies: int = (
        1  # ciphertexts that share one mask in a look-up, each under a small key and a GLWE key of its own: 1 or 2
    )

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
        if not 1 <= self.block_length <= MOST_BLOCK_LENGTH or self.lwe_dimension % self.block_length:
            raise ParameterError(
                f"{self.name}: block_length = {self.block_length} is not in 1..{MOST_BLOCK_LENGTH} and a divisor of lwe_dimension = "
                f"{self.lwe_dimension}"
            )
        if self.block_length > 1 and self.grouping_factor > 1:
            raise ParameterError(
                f"{self.name}: grouping_factor = {self.grouping_factor} groups uniform bits, a step takes one block of "
                f"{self.block_length} already; leave grouping_factor at 1"
            )
        if self.bodies not in (1, 2):
            raise ParameterError(f"{self.name}: bodies = {self.bodies}; one or two ciphertexts share a mask")
        if self.bodies > 1 and self.polynomial_size > self.input_ring.ring_degree:
            raise ParameterError(
                f"{self.name}: polynomial_size = {self.polynomial_size} exceeds the input ring's degree {self.input_ring.ring_degree}; "
                "ciphertexts of the input could not come to share masks"
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
        """Rows of one bootstrapping key entry, each with ``bodies`` body polynomials on the wire."""
        return (self.glwe_dimension + self.bodies) * self.pbs.levels

    @property
    def bits_per_step(self) -> int:
        """Bits of the small key that one step of a bootstrap takes."""
        return self.grouping_factor * self.block_length

    @property
    def ggsws_per_step(self) -> int:
        """GGSW ciphertexts that one step of a bootstrap multiplies by."""
        return self.block_length if self.block_length > 1 else (1 << self.grouping_factor) - 1

    @property
    def steps(self) -> int:
        """Steps of a bootstrap."""
        return self.lwe_dimension // self.bits_per_step

    @property
    def bsk_entries(self) -> int:
        """GGSW ciphertexts of the bootstrapping key, those of one step after those of the one before (ClientKeys.bsk_bits)."""
        return self.steps * self.ggsws_per_step

    @property
    def input_ksk_words(self) -> int:
        """Words of the input secret that have a key switch to the small key; where ciphertexts share masks, merging switches them."""
        return self.input_ring.ring_degree if self.bodies == 1 else 0

    @property
    def merge_entries(self) -> int:
        """Entries of the merge key, polynomials of N coefficients: the input secret's, then the first GLWE key's; 0 with one body."""
        return 0 if self.bodies == 1 else (self.input_ring.ring_degree + self.big_dimension) // self.polynomial_size

    @property
    def split_entries(self) -> int:
        """Entries of the split key: the polynomials of every GLWE key but the first."""
        return (self.bodies - 1) * self.glwe_dimension

    @property
    def small_key_mean(self) -> float:
        """Probability that a bit of the small key is 1."""
        return 1 / (self.block_length + 1)

    @property
    def small_key_variance(self) -> float:
        """Variance of a bit of the small key."""
        return self.small_key_mean * (1 - self.small_key_mean)

    @property
    def answer_key_rows(self) -> int:
        """Rows of the answer key: the key switch of the big key, log2 N automorphisms, one public key."""
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
    for younger in ("grouping_factor", "block_length", "bodies"):
        if fields[younger] == 1:
            del fields[younger]
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

# The small key in blocks of three bits, of which at most one is 1 (docs/decisions/0080-block-keys.md): 269 steps with the very operations
# of the pairs' 368, and nowhere more noise, so that networks made for FAST_N512_PAIRS run under it. Published rows, by the estimator's
# formula and by the exact count of guesses (benchmarks/crypto/dual_hybrid.py): key switch keys n=807 at 2^-15.48, 142.9 and 133.1 bits;
# bootstrapping key k*N=2048 at 2^-48.20, 133.6 and 132.1.
FAST_N512_BLOCK3 = replace(
    FAST_N512,
    name="FAST_N512_BLOCK3",
    lwe_dimension=807,
    lwe_log2_std_dev=-15.48,
    glwe_log2_std_dev=-48.2,
    bsk_body_bits=49,
    block_length=3,
)

# The same with four bits: 212 steps of four products. Key switch keys n=848 at 2^-15.41, 149.1 and 137.4 bits.
FAST_N512_BLOCK4 = replace(
    FAST_N512,
    name="FAST_N512_BLOCK4",
    lwe_dimension=848,
    lwe_log2_std_dev=-15.41,
    glwe_log2_std_dev=-48.2,
    bsk_body_bits=49,
    block_length=4,
)

# FAST_N512_BLOCK3 with two look-ups at a time, whose ciphertexts share a mask (docs/decisions/0204-any-two-look-ups-share-a-mask.md). Those
# of the first layer, too, have the key switch from the big key, of twice as many words, hence n=813 at 2^-15.62: 133.3 bits by the exact
# count. Bodies of 47 bits keep the keys below 30 MB.
FAST_N512_BLOCK3_SHARED2 = replace(
    FAST_N512_BLOCK3,
    name="FAST_N512_BLOCK3_SHARED2",
    lwe_dimension=813,
    lwe_log2_std_dev=-15.62,
    bsk_body_bits=47,
    bodies=2,
)

# EXACT_N2048 with the small key in blocks of three bits: 297 steps for 832. Key switch keys n=891 at 2^-17.78, 140.4 and 132.2 bits.
EXACT_N2048_BLOCK3 = replace(
    EXACT_N2048,
    name="EXACT_N2048_BLOCK3",
    lwe_dimension=891,
    lwe_log2_std_dev=-17.78,
    glwe_log2_std_dev=-48.2,
    block_length=3,
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

# TOY_N128 with blocks, for tests of them.
TOY_N128_BLOCK3 = replace(TOY_N128, name="TOY_N128_BLOCK3", lwe_dimension=66, block_length=3)

# The same with masks that two look-ups share.
TOY_N128_SHARED2 = replace(TOY_N128_BLOCK3, name="TOY_N128_SHARED2", bodies=2)

SETS = {
    params.name: params
    for params in (
        FAST_N512_PAIRS,
        FAST_N512_BLOCK3,
        FAST_N512_BLOCK4,
        FAST_N512_BLOCK3_SHARED2,
        FAST_N512,
        EXACT_N2048,
        EXACT_N2048_BLOCK3,
        TOY_N128,
        TOY_N128_BLOCK3,
        TOY_N128_SHARED2,
        TOY_EXACT_N512,
    )
}
PRODUCT_BODY_BITS, PRODUCT_MASK_BITS = 24, 32
"""Bits kept of the words of an input without look-ups on the wire, under every set: the weights multiply their rounding."""
DEFAULT = FAST_N512_PAIRS.name
"""The set whose noise networks are made for, unless they say otherwise."""
STAND_INS = (FAST_N512_BLOCK3.name, FAST_N512_BLOCK3_SHARED2.name, EXACT_N2048_BLOCK3.name)
"""Sets that servers use in place of a network's own unless told otherwise, the first that may stand in for it and suits it.

docs/decisions/0081-block-keys-by-default.md and 0204-any-two-look-ups-share-a-mask.md have both sides.
"""
SHARING_LOOKUPS = 5000
"""Look-ups of a network from which on a set whose look-ups share masks suits it: a third less time, for keys of 2.3 times the size."""


def get(name_or_id: str) -> ParameterSet:
    """Returns the registered set of this name or id.

    Raises:
        UnknownParamsError: none is registered under it.
    """
    for params in SETS.values():
        if name_or_id in (params.name, params.id):
            return params
    raise UnknownParamsError(f"no parameter set {name_or_id!r}; known are {', '.join(SETS)}")
