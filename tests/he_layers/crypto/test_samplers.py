"""Every sampler that secrets and noise come from, against the distribution that the security estimate and the noise formulas assume.

Bounds are five standard errors at the stated sample counts: a right sampler fails one of them less than once in a million runs.
"""

import os
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.he_layers.crypto import ckks, params, seal
from ciphershift.he_layers.crypto.published import SEAL_STD_DEV
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel

FAST = params.get(params.DEFAULT)
KEY_ID = "00" * 32
KEYS = ClientKeys.generate(FAST)
SERVER_KEYS = KEYS.evaluation_keys(2).expand(2)
RING = FAST.answer_ring


def assert_gaussian(x: NDArray[np.float64], std_dev: float) -> None:
    """Mean, variance, skewness, kurtosis, tails beyond 2, 3 and 4 sigma, and no correlation from one sample to the next."""
    z, count = x / std_dev, len(x)
    assert abs(z.mean()) < 5 / np.sqrt(count)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs(np.mean(z**3)) < 5 * np.sqrt(15 / count)
    assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / count)
    for beyond, share in ((2, 0.045500), (3, 0.0026998), (4, 6.3342e-5)):
        assert abs(np.mean(np.abs(z) > beyond) - share) < 5 * np.sqrt(share / count)
    assert abs(np.mean(z[1:] * z[:-1])) < 5 / np.sqrt(count)


def assert_uniform(counts: NDArray[np.int64]) -> None:
    """Chi-square, whose distribution with f degrees of freedom has mean f and variance 2 f."""
    expected, freedom = counts.sum() / len(counts), len(counts) - 1
    assert expected > 20
    chi_square = float(np.sum((counts - expected) ** 2) / expected)
    assert abs(chi_square - freedom) < 6 * np.sqrt(2 * freedom)


def test_the_kernels_gaussian() -> None:
    """A million samples from a fresh seed."""
    assert_gaussian(_kernel.gaussian(os.urandom(32), 1_000_000, 3.0), 3.0)


def test_the_sampler_test_sees_one_percent_of_noise() -> None:
    """The test above would refuse a deviation that is off by one percent, and a uniform error of the right variance."""
    with pytest.raises(AssertionError):
        assert_gaussian(_kernel.gaussian(os.urandom(32), 1_000_000, 3.03), 3.0)
    with pytest.raises(AssertionError):
        assert_gaussian(np.random.default_rng().uniform(-(3**0.5), 3**0.5, 1_000_000), 1.0)


def test_key_bits_are_unbiased_and_independent() -> None:
    """Two million bits: their share of ones, and of equal neighbors at eight distances."""
    bits = _kernel.uniform_binary(os.urandom(32), 2_000_000, 0)
    assert set(np.unique(bits)) == {0, 1}
    for share in (bits.mean(), *(np.mean(bits[lag:] == bits[:-lag]) for lag in (1, 2, 3, 8, 31, 32, 64, 512))):
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(len(bits) - 512)


def test_binary_keys_are_dense_and_unbiased_at_every_place() -> None:
    """Forty keys: the bits of all, and the sum at each place."""
    keys = np.stack(
        [
            np.concatenate([k.small_lwe_key, k.glwe_key.reshape(-1)])
            for k in (ClientKeys.generate(FAST) for _ in range(40))
        ]
    )
    assert abs(keys.mean() - 0.5) < 5 * 0.5 / np.sqrt(keys.size)
    assert np.abs(keys.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(40)
    assert len(np.unique(keys, axis=0)) == 40


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_patterns_of_a_block_are_alike_likely_and_independent(length: int) -> None:
    """100 000 blocks: how often each pattern comes, and each pair of patterns of neighbors."""
    blocks = _kernel.block_binary(os.urandom(32), 100_000, length).reshape(-1, length)
    assert set(np.unique(blocks)) == {0, 1}
    assert blocks.sum(axis=1).max() == 1
    pattern = blocks @ np.arange(1, length + 1)
    assert_uniform(np.bincount(pattern, minlength=length + 1))
    for lag in (1, 2, 64):
        pairs = pattern[lag:] * (length + 1) + pattern[:-lag]
        assert_uniform(np.bincount(pairs, minlength=(length + 1) ** 2))


def test_block_keys_have_a_single_one_in_a_block_at_most_and_alike_likely_at_every_place() -> None:
    """200 keys: ones at each of 807 places, and no two keys alike."""
    parameter_set = params.FAST_N512_BLOCK3
    keys = np.stack([ClientKeys.generate(parameter_set).small_lwe_key for _ in range(200)])
    assert keys.reshape(-1, 3).sum(axis=1).max() == 1
    assert abs(keys.mean() - 0.25) < 5 * (3 / 16 / keys.size) ** 0.5
    assert np.abs(keys.mean(axis=0) - 0.25).max() < 5 * (3 / 16 / 200) ** 0.5
    assert len(np.unique(keys, axis=0)) == 200


def test_seals_secrets_are_uniform_ternary() -> None:
    """Forty secrets of each ring, 122 880 coefficients."""
    secrets = np.concatenate([seal.generate_secret(ring) for ring in (FAST.input_ring, RING) for _ in range(40)])
    assert_uniform(np.bincount(secrets.astype(np.int64) + 1, minlength=3))
    pairs = (secrets[:-1].astype(np.int64) + 1) * 3 + secrets[1:] + 1
    assert_uniform(np.bincount(pairs, minlength=9))


def test_seals_error_is_the_centered_binomial_of_its_documentation() -> None:
    """51 200 errors: whole numbers within 21 of zero, variance 10.5, kurtosis 3 - 1/21."""
    ring, message = FAST.input_ring, np.full(FAST.input_ring.ring_degree, 1000.0)
    decrypted = [
        seal.decrypt(ring, KEYS.input_secret, seal.encrypt(ring, KEYS.input_secret, message)) for _ in range(50)
    ]
    exact = np.concatenate(decrypted) - 1000.0
    errors = np.rint(exact)
    assert np.abs(exact - errors).max() < 0.01
    assert np.abs(errors).max() <= 21
    count, variance = len(errors), SEAL_STD_DEV**2
    assert abs(errors.mean()) < 5 * np.sqrt(variance / count)
    assert abs(errors.var() / variance - 1) < 5 * np.sqrt(2 / count)
    assert abs(np.mean(errors**4) / variance**2 - (3 - 1 / 21)) < 5 * np.sqrt(96 / count)


@pytest.mark.parametrize("name", ["CKKS c1", "key switch masks", "bootstrapping masks", "answer key masks"])
def test_masks_are_uniform(name: str) -> None:
    """Chi-square over 256 classes; the highest and the lowest bits where the modulus is a power of two."""
    classes: list[NDArray[Any]]
    if name == "CKKS c1":
        words = np.concatenate([ckks.encrypt(KEYS, KEY_ID, np.zeros(4)).c1.reshape(-1) for _ in range(20)])
        classes = [words.astype(np.float64) / FAST.input_ring.modulus * 256]
    elif name == "answer key masks":
        classes = [SERVER_KEYS.answer_key[:, 1].reshape(-1).astype(np.float64) / RING.modulus * 256]
    elif name == "key switch masks":
        mask = SERVER_KEYS.ksk[:-1].reshape(-1)  # the last tile holds the bodies
        classes = [mask >> 24, mask & 255]
    else:
        masks = _kernel.ring_key_masks(
            mask_seed=os.urandom(32), index=3, rows=5, glwe_dimension=4, polynomial_size=512
        ).reshape(-1)
        classes = [masks >> np.uint64(56), masks & np.uint64(255)]
    for values in classes:
        assert_uniform(np.bincount(values.astype(np.int64), minlength=256))


def answers(error_std_dev: float, flooding_std_dev: float, seeds: list[bytes]) -> NDArray[np.uint64]:
    """Ciphertexts of nothing, re-randomized: [seeds, (c0, c1), N]. What is added is all that they hold."""
    nothing = np.zeros((1, FAST.big_dimension + 1), np.uint32)
    gadget: dict[str, Any] = {"base_log": FAST.answer.base_log, "levels": FAST.answer.levels, "modulus": RING.modulus}
    noise: dict[str, Any] = {"error_std_dev": error_std_dev, "flooding_std_dev": flooding_std_dev}
    return np.stack(
        [
            _kernel.packing_key_switch(nothing, SERVER_KEYS.answer_key, **gadget, **noise, seed=seed, threads=1)
            for seed in seeds
        ]
    )


def signed(residues: NDArray[np.uint64]) -> NDArray[np.float64]:
    q = RING.modulus
    return np.where(residues > q // 2, -(q - residues).astype(np.float64), residues.astype(np.float64))


def test_an_answer_is_rerandomized_with_a_ternary_secret_and_gaussian_errors() -> None:
    """Twenty answers with one seed each, with and without errors: u = c1 / a is ternary, the differences are the errors."""
    q, seeds = RING.modulus, [os.urandom(32) for _ in range(20)]
    bare = answers(0.0, 0.0, seeds)
    inverse = [pow(int(a), -1, q) for a in SERVER_KEYS.answer_key[-1, 1]]
    secrets = []
    for c1 in bare[:, 1]:
        products = [int(x) * y % q for x, y in zip(_kernel.ntt_forward(c1, q), inverse, strict=True)]
        secrets.append(signed(_kernel.ntt_inverse(np.array(products, dtype=np.uint64), q)))
    drawn = np.concatenate(secrets)
    assert set(np.unique(drawn)) == {-1, 0, 1}
    assert_uniform(np.bincount(drawn.astype(np.int64) + 1))
    assert all(not np.array_equal(a, b) for a, b in pairwise(secrets))

    flooding = 2.0**FAST.flooding_log2_std_dev * q
    noisy = answers(SEAL_STD_DEV, flooding, seeds)
    differences = signed((noisy + (np.uint64(q) - bare)) % np.uint64(q))
    assert_gaussian(differences[:, 0].reshape(-1), flooding)
    errors = differences[:, 1].reshape(-1)
    assert abs(errors.var() / (SEAL_STD_DEV**2 + 1 / 12) - 1) < 5 * np.sqrt(2 / errors.size)
