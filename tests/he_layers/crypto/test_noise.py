"""Measured noise against its formula."""

import pytest

from ciphershift.benchmarks.crypto import noise

PRIMITIVES = {
    "fresh_ckks_and_sample_extract",
    "shift_linear",
    "key_switch_from_input",
    "key_switch_from_big",
    "key_switch_from_both",
    "modulus_switch",
    "bootstrap",
    "packing_key_switch",
    "packing",
}


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("FAST_N512_PAIRS", "FAST_N512_BLOCK4")]


@pytest.fixture(scope="module", params=["FAST_N512_BLOCK3", *OTHERS])
def ratios(request: pytest.FixtureRequest) -> dict[str, float]:
    return {result["primitive"]: result["ratio"] for result in noise.measure_noise(request.param)}


def test_every_primitive_adds_the_noise_of_its_formula(ratios: dict[str, float]) -> None:
    """Counts of 1500 and more: a ratio of standard deviations within 10 % is at least four standard errors."""
    assert set(ratios) == PRIMITIVES
    assert all(0.9 < ratio < 1.1 for ratio in ratios.values()), ratios
