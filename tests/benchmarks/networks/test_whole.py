"""The benchmark of whole networks, on a small image under TOY parameters: encrypted and simulated have the same noise, layer by layer."""

import numpy as np
import pytest

from ciphershift.benchmarks.networks import whole


@pytest.mark.slow
def test_resnet18_on_a_small_image_has_the_noise_of_its_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSHIFT_ALLOW_TOY_PARAMETERS", "1")
    found = whole.evaluate_whole("resnet18", side=32, parameter_set="TOY_N128", threads=2)
    assert found["lookups"] == sum(chain["lookups"] for chain in found["chains"]) > 50_000
    assert found["classes"] == 1000
    noisy = [chain for chain in found["chains"] if "encrypted_std" in chain]
    assert len(noisy) >= 18
    for chain in noisy:
        assert chain["encrypted_std"] == pytest.approx(chain["simulated_std"], rel=0.2), chain["layer"]
    assert found["logit_noise"] == pytest.approx(found["logit_noise_simulated"], rel=0.2)
    assert sum(chain["measured_s"] for chain in found["chains"]) == pytest.approx(found["measured_s"], rel=0.01)


def test_images_are_real_and_differ() -> None:
    found = whole.crops(4, 48)
    assert found.shape == (4, 3, 48, 48)
    assert found.dtype == np.uint8
    assert len(np.unique(found.reshape(4, -1), axis=0)) == 4
    assert found.std() > 20
