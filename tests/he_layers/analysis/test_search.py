"""The search finds sets that are secure, bear the noise, and are the cheapest of those."""

from dataclasses import replace

import numpy as np
import pytest

from ciphershift.he_layers.analysis import noise_budget, search
from ciphershift.he_layers.crypto import params, published, security
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.timing import PrimitiveTimes
from ciphershift.he_layers.layers import Flatten, Linear, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program

FAST = params.get("FAST_N512")


def program(profile: str) -> Program:
    """A dense layer of sixteen sparse rows, a ReLU, and two logits."""
    rng = np.random.default_rng(0)
    modulus = 32 if profile == "exact" else None
    sparse = (rng.random((16, 64)) < 0.3) * rng.choice(np.array([-1, 1]), (16, 64))
    relu = ReLU(
        name="relu",
        bias=np.zeros(16, dtype=np.int32),
        multiplier=np.full(16, 0.5),
        levels=3,
        delta_out=1 / 32,
        modulus=modulus,
    )
    return Program(
        name="small",
        version="1",
        params=FAST.name,
        profile=profile,
        input=InputSpec(shape=(1, 8, 8), levels=1, delta=1 / 32),
        layers=(
            Flatten(name="flatten"),
            Linear(name="dense", weight=sparse.astype(np.int8)),
            relu,
            Linear(name="logits", weight=np.ones((2, 16), dtype=np.int8), modulus=modulus),
        ),
        output=OutputSpec(classes=("a", "b"), scale=1.0),
    )


def flops(chosen: ParameterSet) -> PrimitiveTimes:
    """A machine on which only arithmetic costs: transforms and products of the bootstrap, words of the key switch."""
    columns, points, levels = chosen.glwe_dimension + 1, chosen.polynomial_size // 2, chosen.pbs.levels
    keys = chosen.ggsws_per_step
    step = columns * (levels + 1) * points * np.log2(points) * 5 + keys * columns**2 * levels * points * 8
    switch = 2.0 * chosen.key_switch.levels * (chosen.lwe_dimension + 1)
    return PrimitiveTimes(
        threads=1,
        lanes=1,
        bootstrap=step * chosen.steps,
        input_key_switch=switch * chosen.input_ring.ring_degree,
        big_key_switch=switch * chosen.big_dimension,
        linear_word=1.0,
        packing_key_switch=1.0,
    )


@pytest.fixture(scope="module", params=["fast", "exact"])
def found(request: pytest.FixtureRequest) -> tuple[Program, list[search.Candidate]]:
    chosen = program(request.param)
    return chosen, search.search(chosen, FAST, flops, count=6)


def test_candidates_are_secure_and_cheapest_first(found: tuple[Program, list[search.Candidate]]) -> None:
    _, candidates = found
    assert len(candidates) == 6
    for candidate in candidates:
        security.require_secure(candidate.params)
        assert candidate.bits >= 131
    seconds = [candidate.seconds for candidate in candidates]
    assert seconds == sorted(seconds)


def test_candidates_bear_the_noise(found: tuple[Program, list[search.Candidate]]) -> None:
    chosen, candidates = found
    limits = noise_budget.of_program(chosen, FAST)
    for candidate in candidates:
        for stage, limit in zip(noise_budget.of_program(chosen, candidate.params), limits, strict=True):
            if chosen.profile == "exact":
                assert stage.log2_failure is not None
                assert stage.log2_failure <= -40
            else:
                assert stage.std_dev <= limit.std_dev * 1.001


def test_a_cheaper_neighbor_of_the_best_does_not_bear_the_noise(found: tuple[Program, list[search.Candidate]]) -> None:
    """A shorter key with the noise that it needs for 132 bits, and one digit less in the key switch."""
    chosen, candidates = found
    best = candidates[0].params
    shorter = best.lwe_dimension - search.LWE_DIMENSIONS.step
    shorter -= shorter % best.block_length
    noise = published.least_log2_std_dev(shorter, search.TARGET_BITS, best.block_length)
    fewer = replace(best.key_switch, levels=best.key_switch.levels - 1)
    limits = noise_budget.of_program(chosen, FAST)
    for neighbor in (
        replace(best, lwe_dimension=shorter, lwe_log2_std_dev=noise),
        replace(best, key_switch=fewer),
    ):
        stages = noise_budget.of_program(chosen, neighbor)
        if chosen.profile == "exact":
            assert any(stage.log2_failure is not None and stage.log2_failure > -40 for stage in stages)
        else:
            assert any(stage.std_dev > limit.std_dev for stage, limit in zip(stages, limits, strict=True))


@pytest.mark.slow
def test_where_no_set_has_so_little_noise_none_is_found() -> None:
    """All input rings are tried, that of the degree of the base's own k * N, too."""
    assert search.search(program("fast"), FAST, flops, noise_factor=0.3, count=1) == []


def test_more_noise_that_is_borne_makes_a_set_cheaper() -> None:
    chosen = program("fast")
    strict, lenient = (search.search(chosen, FAST, flops, noise_factor=factor, count=1) for factor in (1.0, 1.5))
    assert lenient[0].seconds < strict[0].seconds


@pytest.mark.parametrize(("dimension", "length"), [(640, 1), (736, 1), (2048, 1), (804, 3), (844, 4)])
def test_least_noise_is_on_the_lower_line(dimension: int, length: int) -> None:
    value = published.least_log2_std_dev(dimension, 132.0, length)
    counts = (published.estimated_bits, published.exact_bits)
    bits = [min(count("binary", dimension, value - off, length) for count in counts) for off in (0.0, 0.01)]
    assert bits[0] >= 132 > bits[1]


def test_blocks_are_the_cheapest_where_only_arithmetic_costs() -> None:
    best = search.search(program("fast"), FAST, flops, count=1)[0]
    assert best.params.block_length > 1
