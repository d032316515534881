"""Search for the cheapest parameter set under which a Program computes what it should.

A Program bears a certain noise: in the fast profile what it was trained with (that of its registered set, or a stated multiple), in the
exact profile what keeps every look-up's failure under 2^-40. Among the sets whose published rows all have TARGET_BITS by both counts,
candidates are priced by he_layers.analysis.cost, and the cheapest ones that keep to the noise are returned. A set is then registered by
hand.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from ciphershift.he_layers.analysis import cost, noise_budget
from ciphershift.he_layers.analysis.noise_budget import LOG2_FAILURE_LIMIT, StageNoise
from ciphershift.he_layers.crypto import noise, published, security
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import CkksRing, Gadget, ParameterSet
from ciphershift.he_layers.crypto.timing import PrimitiveTimes
from ciphershift.he_layers.program import Program

TARGET_BITS = 132.0
LOOKUP_RINGS = ((4, 512), (3, 512), (8, 256), (2, 1024), (1, 2048), (3, 1024), (2, 2048), (1, 4096))
"""(k, N) that the kernel has loops for."""
LWE_DIMENSIONS = range(640, 1001, 8)
PBS_LEVELS = (1, 2)
STEPS = ((1, 1), (2, 1), (1, 3), (1, 4))
"""Grouping factor and block length of the small key: what one step of a bootstrap takes."""
MOST_KEY_BYTES = 25_000_000
"""Evaluation keys on the wire: two bits at a time save time and cost upload."""
KEY_SWITCH_BASES = range(1, 6)
INPUTS = (
    (CkksRing(ring_degree=1024, modulus=4188161), 14),
    (CkksRing(ring_degree=1024, modulus=67104769), 18),
    (CkksRing(ring_degree=2048, modulus=1125899906826241), 24),
)
"""Rings of the upload with the bits kept of c0, smallest upload first."""
ANSWER_RINGS = (
    CkksRing(ring_degree=2048, modulus=1125899906826241),
    CkksRing(ring_degree=4096, modulus=288230376151130113),
)
WORD_FLOOR_LOG2 = -62.0
"""Noise of a key row is at least four units of its 64-bit words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A parameter set with what it costs and how it serves the Program.

    Attributes:
        seconds: predicted, of the server for one image.
        bootstrap_us: predicted, of one bootstrap on one core.
        stages: predicted noise of every layer's look-ups and of the logits.
        key_bytes: of the evaluation keys on the wire.
        bits: of the weakest published row.
    """

    params: ParameterSet
    seconds: float
    bootstrap_us: float
    stages: tuple[StageNoise, ...]
    key_bytes: int
    bits: float


def search(
    program: Program,
    base: ParameterSet,
    measure: Callable[[ParameterSet], PrimitiveTimes],
    *,
    noise_factor: float = 1.0,
    count: int = 10,
    watch: Callable[[list[ParameterSet]], Iterable[ParameterSet]] = iter,
) -> list[Candidate]:
    """The ``count`` cheapest sets for a Program, cheapest first, all with the smallest upload that serves; [] if no set does.

    Of the sets with one ring and one short key only the cheapest is listed.

    Args:
        program: what is to be computed.
        base: the registered set that the Program was made for: in the fast profile its noise is what the Program bears.
        measure: times of the primitives under a set, on the machine that is to be served from.
        noise_factor: how much more noise than that of ``base`` the Program bears (fast profile).
        count: how many to return.
        watch: is handed the sets that are to be timed and yields them, so that somebody may look on.
    """
    gains, work = noise_budget.gains(program), cost.work(program)
    exact = program.profile == "exact"
    limits = [stage.std_dev * noise_factor for stage in noise_budget.under(gains, base, exact=exact)]
    for ring, body_bits in INPUTS:
        priced = []
        for params in watch(list(_sets(base, ring, body_bits))):
            key_bytes = EvaluationKeys.nbytes(params)
            if key_bytes <= MOST_KEY_BYTES:
                times = measure(params)
                priced.append((cost.seconds(work, params, times), key_bytes, params, times))
        found: list[Candidate] = []
        seen: set[tuple[int, int, int, int, int, int]] = set()
        for seconds, key_bytes, params, times in sorted(priced, key=lambda entry: entry[:2]):
            shape = (
                params.glwe_dimension,
                params.polynomial_size,
                params.pbs.levels,
                params.grouping_factor,
                params.block_length,
                params.lwe_dimension,
            )
            stages = [] if shape in seen else noise_budget.under(gains, params, exact=exact)
            if not stages or not (_is_exact(stages) if exact else _is_borne(stages, limits)):
                continue
            seen.add(shape)
            found.append(
                Candidate(
                    params=params,
                    seconds=seconds,
                    bootstrap_us=times.bootstrap / times.lanes * 1e6,
                    stages=tuple(stages),
                    key_bytes=key_bytes,
                    bits=security.security_bits(params),
                )
            )
            if len(found) == count:
                break
        if found:
            return found
    return []


def _is_exact(stages: list[StageNoise]) -> bool:
    return all(stage.log2_failure is not None and stage.log2_failure <= LOG2_FAILURE_LIMIT for stage in stages)


def _is_borne(stages: list[StageNoise], limits: list[float]) -> bool:
    return all(stage.std_dev <= limit * (1 + 1e-9) for stage, limit in zip(stages, limits, strict=True))


def _sets(base: ParameterSet, input_ring: CkksRing, input_body_bits: int) -> Iterator[ParameterSet]:
    for (k, size), levels, (grouping_factor, block_length) in product(LOOKUP_RINGS, PBS_LEVELS, STEPS):
        answer_ring = next(answer for answer in ANSWER_RINGS if answer.ring_degree >= k * size)
        if k * size == input_ring.ring_degree or (k, levels) == (8, 2):
            continue
        glwe_noise = max(published.least_log2_std_dev(k * size, TARGET_BITS), WORD_FLOOR_LOG2)
        lookup = replace(
            base,
            name="CANDIDATE",
            input_ring=input_ring,
            input_body_bits=input_body_bits,
            glwe_dimension=k,
            polynomial_size=size,
            glwe_log2_std_dev=glwe_noise,
            bsk_body_bits=min(math.floor(-glwe_noise), 64),
            answer_ring=answer_ring,
            grouping_factor=grouping_factor,
            block_length=block_length,
            bodies=1,
            lwe_dimension=LWE_DIMENSIONS.start * block_length,  # replaced below
        )
        lookup = replace(lookup, pbs=_quietest_gadget(lookup, levels))
        for nearly, base_log in product(LWE_DIMENSIONS, KEY_SWITCH_BASES):
            n = nearly - nearly % block_length
            small_noise = published.least_log2_std_dev(n, TARGET_BITS, block_length)
            # Fewer digits than the key's own noise asks for lose precision, more of them gain nothing.
            most = math.ceil(-small_noise / base_log)
            for key_switch_levels in range(max(2, most - 4), min(most, 31 // base_log) + 1):
                yield replace(
                    lookup,
                    lwe_dimension=n,
                    lwe_log2_std_dev=small_noise,
                    key_switch=Gadget(base_log=base_log, levels=key_switch_levels),
                )


def _quietest_gadget(params: ParameterSet, levels: int) -> Gadget:
    """The base with the least noise of a bootstrap; it costs no time."""
    gadgets = [Gadget(base_log=base_log, levels=levels) for base_log in range(6, 40 // levels)]
    return min(gadgets, key=lambda gadget: noise.pbs_variance(replace(params, pbs=gadget)))
