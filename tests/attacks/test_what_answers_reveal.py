"""What an answer shows besides its logits: no input by its size, nothing in other coefficients, little in its noise."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, noise, params
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer, ciphertext_type
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import Conv2d, Linear
from ciphershift.he_layers.program import Program
from tests.support import other_inputs

KEY_ID = "00" * 32
TOY = params.get("TOY_N128")
FAST = params.get(params.DEFAULT)
WORDS = 1 << TOY.answer_bits
Evaluate = Callable[[Program, CkksCiphertext], PackedAnswer]


@pytest.fixture(scope="module")
def keys() -> ClientKeys:
    return ClientKeys.generate(TOY)


@pytest.fixture(scope="module")
def answer_of(keys: ClientKeys) -> Evaluate:
    server_keys: ServerKeys = keys.evaluation_keys(2).expand(2)

    def run(program: Program, image: CkksCiphertext) -> PackedAnswer:
        *_, last = evaluate.run(program, server_keys, [[image]], threads=2)
        assert last.answer is not None
        return last.answer

    return run


def encrypted(keys: ClientKeys, program: Program, image: NDArray[np.uint8]) -> CkksCiphertext:
    turns = program.input.integers(image[None]).reshape(-1) * program.input.delta
    return ckks.encrypt(keys, KEY_ID, turns, ciphertext_type(program.lookups))


def with_weights(program: Program, change: Callable[[NDArray[np.int8]], NDArray[np.int8]]) -> Program:
    layers = [
        replace(layer, weight=change(layer.weight)) if isinstance(layer, Conv2d | Linear) else layer
        for layer in program.layers
    ]
    return replace(program, layers=tuple(layers))


def models(program: Program) -> Iterator[Program]:
    """The same shapes: the true weights, none but zeros, others, a last layer that copies."""
    yield program
    yield with_weights(program, np.zeros_like)
    yield with_weights(program, lambda weight: -weight[::-1])
    yield with_weights(program, lambda weight: np.eye(len(weight), weight[0].size, dtype=np.int8).reshape(weight.shape))


def test_answers_have_one_size_for_every_input_and_every_model_of_the_same_shape(
    keys: ClientKeys, answer_of: Evaluate, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    images = [*tiny_images, np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 255, np.uint8)]
    sizes = {
        len(answer_of(program, encrypted(keys, program, image)).to_bytes())
        for program in models(tiny_program)
        for image in images
    }
    assert sizes == {PackedAnswer.nbytes(TOY, 3)}


def chi_square(words: NDArray[np.uint64], classes: int = 256) -> float:
    """Distance from uniform in standard deviations of the chi-square statistic."""
    counts = np.bincount((words * np.uint64(classes) // np.uint64(WORDS)).astype(np.int64), minlength=classes)
    expected = counts.sum() / classes
    freedom = classes - 1
    return float((np.sum((counts - expected) ** 2) / expected - freedom) / math.sqrt(2 * freedom))


def repeated(answer_of: Evaluate, program: Program, image: CkksCiphertext, count: int) -> Sequence[PackedAnswer]:
    return [answer_of(program, image) for _ in range(count)]


@pytest.mark.parametrize("has_lookups", [True, False], ids=["look-ups", "no look-up"])
@pytest.mark.parametrize("zero_weights", [False, True], ids=["true weights", "zero weights"])
def test_only_logits_are_there_and_all_the_rest_is_uniform_and_fresh(
    keys: ClientKeys,
    answer_of: Evaluate,
    tiny_program: Program,
    tiny_images: NDArray[np.uint8],
    zero_weights: bool,
    has_lookups: bool,
) -> None:
    """Twenty answers to one and the same request, 40 960 words of mask: uniform each, and uniform their differences."""
    program = tiny_program if has_lookups else replace(other_inputs.scores(), params=TOY.name)
    image = tiny_images[0] if has_lookups else np.array([0, 3, 9, 15], dtype=np.uint8)
    program = with_weights(program, np.zeros_like) if zero_weights else program
    answers = repeated(answer_of, program, encrypted(keys, program, image), 20)
    assert all(answer.c0.shape == (program.answer_values,) for answer in answers)
    masks = np.stack([answer.c1 for answer in answers])
    assert abs(chi_square(masks.reshape(-1))) < 6
    differences = (masks[1:] + np.uint64(WORDS) - masks[:-1]) % np.uint64(WORDS)
    assert abs(chi_square(differences.reshape(-1))) < 6
    bodies = np.stack([answer.c0 for answer in answers])
    assert len(np.unique(bodies[:, 0])) == len(bodies)


def test_the_uniformity_test_sees_an_answer_that_was_not_rerandomized(
    keys: ClientKeys, answer_of: Evaluate, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    answers = repeated(answer_of, tiny_program, encrypted(keys, tiny_program, tiny_images[0]), 2)
    same = answers[0].c1, answers[0].c1
    assert abs(chi_square((same[0] + np.uint64(WORDS) - same[1]) % np.uint64(WORDS))) > 6


def test_two_answers_to_one_request_differ_and_hold_the_same_logits(
    keys: ClientKeys, answer_of: Evaluate, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    request = encrypted(keys, tiny_program, tiny_images[0])
    first, second = repeated(answer_of, tiny_program, request, 2)
    assert first.binding == second.binding
    assert np.mean(first.c1 == second.c1) < 0.01
    runs = simulate.run(tiny_program, TOY, np.repeat(tiny_images[:1], 200, axis=0), np.random.default_rng(0))
    apart = (ckks.decrypt(keys, first) - ckks.decrypt(keys, second)) * tiny_program.turns_to_logits
    assert np.abs(apart).max() < 8 * runs.std()
    assert np.abs(apart).max() > 0


def test_logits_are_rounded_to_the_precision_that_the_answer_declares(
    keys: ClientKeys, answer_of: Evaluate, tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    turns = ckks.decrypt(keys, answer_of(tiny_program, encrypted(keys, tiny_program, tiny_images[0])))
    steps = turns * 2**TOY.answer_bits
    assert np.array_equal(steps, np.rint(steps))


def test_flooding_distance_is_the_statistical_distance() -> None:
    """The closed form against the distance of two Gaussians, integrated on a grid and averaged over the model's own error."""
    own = math.sqrt(noise.packing_key_switch_variance(FAST) + 30**2 * noise.pbs_variance(FAST))
    flooding = 2.0**FAST.flooding_log2_std_dev
    x = np.linspace(-12, 12, 4001) * max(own, flooding)
    density = np.exp(-(x**2) / (2 * flooding**2))
    density /= density.sum()
    quantiles = (np.arange(200) + 0.5) / 200
    normal = np.sort(np.random.default_rng(0).normal(size=200_000))[(quantiles * 200_000).astype(int)]
    distances = []
    for error in normal * own:
        shifted = np.exp(-((x - error) ** 2) / (2 * flooding**2))
        distances.append(0.5 * np.abs(density - shifted / shifted.sum()).sum())
    assert noise.flooding_distance(FAST, 30.0) == pytest.approx(np.mean(distances), rel=0.03)


def test_flooding_is_rerandomization_and_no_circuit_privacy() -> None:
    """A few bits over the noise of packing, less than one over that of a real last layer: docs/security.md says so, too."""
    assert 4 < -math.log2(noise.flooding_distance(FAST)) < 10
    assert -math.log2(noise.flooding_distance(FAST, 30.0)) < 1
