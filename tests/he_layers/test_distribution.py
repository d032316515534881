"""Encrypted and simulated logits have the same distribution, so that accuracy on many images may be simulated.

Two-sample Kolmogorov-Smirnov test of 400 encryptions (eight keys, fifty each) against 20 000 simulations of one image, for each of three
logits, and of two logits without look-ups, at a significance of 1e-4 each: a right simulation fails once in some 1600 runs. Power, checked
in each run: simulated noise that is 1.6 times too large, or shifted by half its standard deviation, is refused.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import ciphertext_type
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from tests.support import other_inputs

KEYS, RUNS, SIMULATIONS = 8, 50, 20_000
KEY_ID = "00" * 32


Logits = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Encrypted and simulated ones of one image, [runs, classes] each."""


def both(program: Program, image: NDArray[np.uint8]) -> Logits:
    parameter_set = params.get(program.params)
    simulated = simulate.run(program, parameter_set, np.repeat(image, SIMULATIONS, axis=0), np.random.default_rng())
    turns, kind = program.input.integers(image).reshape(-1) * program.input.delta, ciphertext_type(program.lookups)
    encrypted = []
    for _ in range(KEYS):
        keys = ClientKeys.generate(parameter_set)
        server_keys = keys.evaluation_keys(2).expand(2)
        for _ in range(RUNS):
            *_, last = evaluate.run(program, server_keys, [[ckks.encrypt(keys, KEY_ID, turns, kind)]], threads=2)
            assert last.answer is not None
            encrypted.append(program.logits(ckks.decrypt(keys, last.answer)))
    return np.stack(encrypted), simulated


@pytest.fixture(scope="module")
def logits(tiny_program: Program, tiny_images: NDArray[np.uint8]) -> Logits:
    return both(tiny_program, tiny_images[:1])


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest difference of the two empirical distribution functions, in units of its critical value at 1e-4."""
    points = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (a, b)]
    critical = np.sqrt(-np.log(1e-4 / 2) / 2 * (1 / len(a) + 1 / len(b)))
    return float(np.abs(shares[0] - shares[1]).max() / critical)


def require_alike(encrypted: NDArray[np.float64], simulated: NDArray[np.float64]) -> None:
    assert max(distance(a, b) for a, b in zip(encrypted.T, simulated.T, strict=True)) < 1
    ratio = encrypted.std(axis=0) / simulated.std(axis=0)  # one standard error is 3.5 %
    assert np.all((ratio > 0.85) & (ratio < 1.15)), ratio


def test_encrypted_logits_have_the_simulated_distribution(logits: Logits) -> None:
    require_alike(*logits)


def test_the_comparison_would_see_other_noise(logits: Logits) -> None:
    encrypted, simulated = logits
    mean, std = simulated.mean(axis=0), simulated.std(axis=0)
    for wrong in (mean + (simulated - mean) * 1.6, simulated + std / 2):
        assert max(distance(a, b) for a, b in zip(encrypted.T, wrong.T, strict=True)) > 1


def test_refined_answers_have_the_simulated_noise() -> None:
    """Of a network without look-ups: half of it is the input's own, half what refining leaves of an answer's."""
    program = replace(other_inputs.scores(), params="TOY_N128")
    require_alike(*both(program, np.array([[0, 3, 9, 15]], dtype=np.uint8)))
