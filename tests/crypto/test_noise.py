"""Measured noise against its formula, and the samplers' distributions."""

import numpy as np

from benchmarks import noise
from he_layers.crypto import params
from he_layers.crypto.secret_keys import ClientKeys
from he_layers.native import _kernel


def test_every_primitive_adds_the_noise_of_its_formula() -> None:
    """Counts of 1500 and more: a ratio of standard deviations within 10 % is at least four standard errors."""
    ratios = {result["primitive"]: result["ratio"] for result in noise.measure(params.DEFAULT)}
    assert len(ratios) == 8
    assert all(0.9 < ratio < 1.1 for ratio in ratios.values()), ratios


def test_gaussian_sampler_has_the_moments_and_tails_of_a_gaussian() -> None:
    """400 000 samples: mean and variance within five standard errors, kurtosis 3, tails beyond 2 and 3 sigma."""
    x = _kernel.gaussian(bytes(32), 400_000, 2.0) / 2.0
    count = len(x)
    assert abs(x.mean()) < 5 / np.sqrt(count)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs(np.mean(x**4) - 3) < 5 * np.sqrt(96 / count)
    for beyond, share in ((2, 0.04550), (3, 0.002700)):
        assert abs(np.mean(np.abs(x) > beyond) - share) < 5 * np.sqrt(share / count)


def test_key_bits_are_unbiased_and_keys_differ() -> None:
    first, second = (ClientKeys.generate(params.get(params.DEFAULT)) for _ in range(2))
    bits = np.concatenate([first.big_lwe_key, first.small_lwe_key])
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))
    for secret in (first.input_secret, first.answer_secret):
        shares = [float(np.mean(secret == value)) for value in (-1, 0, 1)]
        assert np.allclose(shares, 1 / 3, atol=5 * np.sqrt(2 / 9 / len(secret)))
    assert not np.array_equal(first.glwe_key, second.glwe_key)
    assert not np.array_equal(first.input_secret, second.input_secret)
