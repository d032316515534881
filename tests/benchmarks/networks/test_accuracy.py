"""The logits' noise: the simulation's in the fast profile, none at all in the exact one."""

import numpy as np
import pytest

from ciphershift.benchmarks.networks import accuracy
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28), dtype=np.uint8)


@pytest.mark.slow
def test_logits_of_the_fast_profile_have_the_noise_that_was_simulated() -> None:
    found = accuracy.logit_noise(Program.load(Settings().models / "mnist-tiny"), IMAGES)
    assert found["images"] == len(IMAGES)
    assert found["ratio"] == pytest.approx(found["encrypted_std"] / found["simulated_std"], rel=0.01)
    assert 0.5 < found["ratio"] < 1.8


@pytest.mark.slow
def test_logits_of_the_exact_profile_have_no_noise() -> None:
    found = accuracy.logit_noise(Program.load(Settings().models / "mnist-exact"), IMAGES[:2])
    assert found == {"images": 2, "encrypted_std": 0.0, "simulated_std": 0.0, "ratio": None}
