"""Measured noise against its formula."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ciphershift.benchmarks.crypto import noise
from ciphershift.he_layers.crypto import noise as formulas
from ciphershift.he_layers.crypto import params

PRIMITIVES = {
    "fresh_ckks_and_sample_extract",
    "fresh_product",
    "shift_linear",
    "key_switch_from_big",
    "modulus_switch",
    "bootstrap",
    "second_place",
    "packing_key_switch",
    "packing",
    "packing_products",
}
OF_ONE_BODY = {"key_switch_from_input", "key_switch_from_both"}
OF_TWO_BODIES = {"merge_from_input", "merge_from_big", "merge_from_both"}

OTHERS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("FAST_N512_PAIRS", "FAST_N512_BLOCK4", "FAST_N512_BLOCK3_SHARED2")
]


@pytest.fixture(scope="module", params=["FAST_N512_BLOCK3", *OTHERS])
def results(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return list(noise.measure_noise(request.param))


def test_every_primitive_adds_the_noise_of_its_formula(results: list[dict[str, Any]]) -> None:
    """Samples and keys together make a ratio's deviation 2.2 % at most (ten pairs of keys); 10 % is more than four of these."""
    shared = params.get(results[0]["params"]).bodies > 1
    assert {result["primitive"] for result in results} == PRIMITIVES | (OF_TWO_BODIES if shared else OF_ONE_BODY)
    assert sum("correlation" in result for result in results) == (len(OF_TWO_BODIES) + 4 if shared else 0)
    assert all(0.9 < result["ratio"] < 1.1 for result in results), results
    assert all(abs(result["correlation"]) < 0.15 for result in results if "correlation" in result), results


def test_ciphertexts_that_share_a_mask_have_the_noise_of_the_formula_each() -> None:
    """1500 rows under a toy set, whose short keys move a deviation by some per cent: each body, and nothing in common."""
    toy = params.get("TOY_N128_SHARED2")
    laboratory = noise.Laboratory(toy)
    both = {"from_input": True, "from_big": True}
    for errors, variance in (
        (laboratory.merge(1500, **both), formulas.merge_variance(toy, **both)),
        (laboratory.key_switch(1500, from_input=False, from_big=True), formulas.key_switch_variance(toy)),
        (laboratory.bootstrap(1500), formulas.pbs_variance(toy)),
    ):
        errors = (errors + 0.5) % 1 - 0.5
        assert errors.shape == (1500, 2)
        assert np.all(np.abs(np.sqrt(np.mean(errors**2, axis=0) / variance) - 1) < 0.2)
        assert abs(noise.correlation(errors)) < 0.15


def test_a_merge_leaves_the_noise_of_every_row_in_both_values() -> None:
    """Rows so loud that what the digits leave out is nothing beside them; 1500 rows, as above."""
    loud = replace(params.get("TOY_N128_SHARED2"), name="TOY_LOUD", glwe_log2_std_dev=-42.0)
    both = {"from_input": True, "from_big": True}
    errors = noise.Laboratory(loud).merge(1500, **both)
    ratios = np.sqrt(np.mean(errors**2, axis=0) / formulas.merge_variance(loud, **both))
    assert np.all(np.abs(ratios - 1) < 0.2)


@pytest.mark.parametrize(
    ("place", "low", "high"), [(1, 0.15, 0.65), (64, -0.15, 0.15), (192, -0.15, 0.15), (127, -0.65, -0.15)]
)
def test_two_results_of_one_rotation_have_the_noise_of_the_formula_each(place: int, low: float, high: float) -> None:
    """1500 rows, N = 128: neighbors are correlated, places half a ring apart are not; from N on the sign is turned."""
    toy = params.get("TOY_N128")
    errors = [(error[:, 0] + 0.5) % 1 - 0.5 for error in noise.Laboratory(toy).two_places(1500, place)]
    for error in errors:
        assert abs(np.sqrt(np.mean(error**2) / formulas.pbs_variance(toy)) - 1) < 0.2
    assert low < noise.correlation(np.stack(errors, axis=1)) < high
