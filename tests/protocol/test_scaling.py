"""Pixels to integers and torus values to logits: once, for Program and client."""

import numpy as np

from ciphershift.protocol import scaling


def test_integers_span_all_levels() -> None:
    assert scaling.to_integers(np.array([0.0, 0.49 / 15, 0.51 / 15, 1.0]), 15).tolist() == [0, 0, 1, 15]


def test_logits_are_rounded_to_their_step() -> None:
    turns = np.array([-0.11, 0.0, 0.26])
    assert np.allclose(scaling.to_logits(turns, 10.0, None), [-1.1, 0.0, 2.6])
    assert np.allclose(scaling.to_logits(turns, 10.0, 0.5), [-1.0, 0.0, 2.5])


def test_two_answers_for_a_value_have_the_noise_of_the_finer_one() -> None:
    """Answers with noise of 2^-12 turns, over the whole range of a sum."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-0.49, 0.49, (2000, 3))
    noise = 2.0**-12 * rng.standard_normal((2, *values.shape))
    coarse, fine = values + noise[0], 64 * values + noise[1]
    turns = np.concatenate([coarse, fine - np.rint(fine)], axis=1)
    assert np.abs(scaling.refined(turns, 64) - (values + noise[1] / 64)).max() < 1e-12
    assert np.array_equal(scaling.to_logits(turns, 10.0, None, 64), 10 * scaling.refined(turns, 64))


def test_values_are_answered_as_they_are_read() -> None:
    values = np.array([[0.25, -0.5], [0.125, 0.0]])
    assert scaling.answered(values, None) is values
    assert scaling.answered(values, 4).tolist() == [[0.25, -0.5, 1.0, -2.0], [0.125, 0.0, 0.5, 0.0]]
    assert scaling.answered(values, 4, axis=0).shape == (4, 2)
    assert scaling.refined(scaling.answered(values, 4), 4).tolist() == values.tolist()
    assert scaling.answer_values(3, 4) == 6 and scaling.answer_values(3, None) == 3
