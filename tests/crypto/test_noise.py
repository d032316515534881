"""Measured noise against its formula. Counts are stated; a variance from m samples has a relative error of sqrt(2/m)."""

import numpy as np
import pytest
from numpy.typing import NDArray

from he_layers.crypto import ckks, lwe, noise, packing, params
from he_layers.crypto.ciphertexts import LweCiphertextList
from he_layers.crypto.evaluation_keys import ServerKeys
from he_layers.crypto.secret_keys import ClientKeys
from he_layers.native import _kernel

FAST = params.get("FAST_N512")
RNG = np.random.default_rng()


@pytest.fixture(scope="module")
def client_keys() -> ClientKeys:
    return ClientKeys.generate(FAST)


@pytest.fixture(scope="module")
def server_keys(client_keys: ClientKeys) -> ServerKeys:
    return client_keys.evaluation_keys().expand(threads=2)


def encrypted(phases: NDArray[np.float64], key: NDArray[np.int8]) -> LweCiphertextList:
    """Noiseless LWE ciphertexts with uniform masks."""
    mask = RNG.integers(0, 2**32, (len(phases), len(key)), dtype=np.uint32)
    body = mask @ key.astype(np.int32).astype(np.uint32) + lwe.to_words(phases)
    return LweCiphertextList(np.concatenate([mask, body[:, None]], axis=1))


def phases_of(x: NDArray[np.uint32], key: NDArray[np.int8]) -> NDArray[np.float64]:
    return (x[:, -1] - x[:, :-1] @ key.astype(np.int32).astype(np.uint32)).astype(np.int32) / 2.0**32


def ratio(errors: NDArray[np.float64], variance: float) -> float:
    wrapped = (errors + 0.5) % 1 - 0.5
    return float(np.sqrt(np.mean(wrapped**2) / variance))


def test_fresh_ciphertexts_extracted(client_keys: ClientKeys) -> None:
    """4 x 1024 coefficients."""
    errors = []
    for _ in range(4):
        values = RNG.uniform(-0.2, 0.2, FAST.input_ring.ring_degree)
        rows = lwe.sample_extract(ckks.encrypt(client_keys, "00" * 32, values))
        errors.append(phases_of(rows.data, client_keys.input_secret) - values)
    assert 0.9 < ratio(np.concatenate(errors), noise.fresh_ckks_variance(FAST)) < 1.1


@pytest.mark.parametrize("source", ["input", "big"])
def test_key_switch(client_keys: ClientKeys, server_keys: ServerKeys, source: str) -> None:
    """1500 ciphertexts under one key."""
    key = client_keys.input_secret if source == "input" else client_keys.big_lwe_key
    predicted = noise.input_key_switch_variance(FAST) if source == "input" else noise.key_switch_variance(FAST)
    phases = RNG.uniform(-0.25, 0.25, 1500)
    switched = lwe.key_switch(encrypted(phases, key), server_keys, threads=2)
    assert 0.9 < ratio(phases_of(switched.data, client_keys.small_lwe_key) - phases, predicted) < 1.1


def test_key_switch_from_both_keys_adds_both_noises(client_keys: ClientKeys, server_keys: ServerKeys) -> None:
    """1500 ciphertexts under the CKKS secret and the big key one after the other, as a max-pool after the input makes them."""
    key = np.concatenate([client_keys.input_secret, client_keys.big_lwe_key])
    phases = RNG.uniform(-0.25, 0.25, 1500)
    switched = lwe.key_switch(encrypted(phases, key), server_keys, threads=2)
    predicted = noise.input_key_switch_variance(FAST) + noise.key_switch_variance(FAST)
    assert 0.9 < ratio(phases_of(switched.data, client_keys.small_lwe_key) - phases, predicted) < 1.1


def test_modulus_switch(client_keys: ClientKeys) -> None:
    """4000 ciphertexts."""
    phases = RNG.uniform(-0.25, 0.25, 4000)
    key = client_keys.small_lwe_key
    switched = _kernel.modulus_switch(encrypted(phases, key).data, polynomial_size=FAST.polynomial_size)
    got = (switched[:, -1] - switched[:, :-1] @ key.astype(np.int32)) / (2 * FAST.polynomial_size)
    assert 0.9 < ratio(got - phases, noise.modulus_switch_variance(FAST)) < 1.1


def test_bootstrap(client_keys: ClientKeys, server_keys: ServerKeys) -> None:
    """1200 look-ups of a random table: what comes out against the table at the very point that was looked up."""
    count, n = 1200, FAST.polynomial_size
    small = encrypted(RNG.uniform(-0.5, 0.5, count), client_keys.small_lwe_key)
    switched = _kernel.modulus_switch(small.data, polynomial_size=n)
    point = (switched[:, -1] - switched[:, :-1] @ client_keys.small_lwe_key.astype(np.int32)) % (2 * n)
    table = RNG.uniform(-0.25, 0.25, (1, n))
    rows = _kernel.blind_rotate(
        switched,
        table,
        np.zeros(count, np.int32),
        server_keys.fourier_bsk,
        base_log=FAST.pbs.base_log,
        levels=FAST.pbs.levels,
        threads=2,
    )
    want = np.where(point < n, table[0, point % n], -table[0, point % n])
    assert 0.9 < ratio(phases_of(rows, client_keys.big_lwe_key) - want, noise.pbs_variance(FAST)) < 1.1


def test_packing(client_keys: ClientKeys, server_keys: ServerKeys) -> None:
    """120 answers of ten logits."""
    errors = []
    for _ in range(120):
        phases = RNG.uniform(-0.45, 0.45, 10)
        answer = packing.packing_key_switch(encrypted(phases, client_keys.big_lwe_key), server_keys, "00" * 32)
        errors.append(ckks.decrypt(client_keys, answer) - phases)
    assert 0.9 < ratio(np.concatenate(errors), noise.packing_variance(FAST)) < 1.1


def test_gaussian_sampler_has_the_moments_and_tails_of_a_gaussian() -> None:
    """400 000 samples: mean and variance within five standard errors, kurtosis 3, tails beyond 2 and 3 sigma."""
    x = _kernel.gaussian(bytes(32), 400_000, 2.0) / 2.0
    count = len(x)
    assert abs(x.mean()) < 5 / np.sqrt(count)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs(np.mean(x**4) - 3) < 5 * np.sqrt(96 / count)
    for beyond, share in ((2, 0.04550), (3, 0.002700)):
        assert abs(np.mean(np.abs(x) > beyond) - share) < 5 * np.sqrt(share / count)


def test_key_bits_are_unbiased_and_keys_differ(client_keys: ClientKeys) -> None:
    bits = np.concatenate([client_keys.big_lwe_key, client_keys.small_lwe_key])
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))
    assert not np.array_equal(client_keys.glwe_key, ClientKeys.generate(FAST).glwe_key)
