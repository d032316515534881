"""The benchmark of whole networks, on a small image under TOY parameters: encrypted and simulated have the same noise, layer by layer."""

import numpy as np
import pytest

from ciphershift.benchmarks.networks import whole


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_shufflenet_on_a_small_image_has_the_noise_of_its_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw of the encrypted noise against three simulated ones: a layer's ratio spreads, the median of all does not."""
    monkeypatch.setenv("CIPHERSHIFT_ALLOW_TOY_PARAMETERS", "1")
    found = whole.evaluate_whole("shufflenet", side=32, parameter_set="TOY_N128", threads=2)
    assert found["lookups"] == sum(chain["lookups"] for chain in found["chains"]) > 50_000
    assert found["classes"] == 1000
    ratios = [chain["encrypted_std"] / chain["simulated_std"] for chain in found["chains"] if "encrypted_std" in chain]
    assert len(ratios) > 100
    assert 0.6 < min(ratios) < max(ratios) < 1.6
    assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert found["logit_noise"] == pytest.approx(found["logit_noise_simulated"], rel=0.4)
    assert sum(chain["measured_s"] for chain in found["chains"]) == pytest.approx(found["measured_s"], rel=0.02)


def test_images_are_real_and_differ() -> None:
    found = whole.crops(4, 48)
    assert found.shape == (4, 3, 48, 48)
    assert found.dtype == np.uint8
    assert len(np.unique(found.reshape(4, -1), axis=0)) == 4
    assert found.std() > 20
