"""Pixels to integers and torus values to logits: once, for Program and client."""

import numpy as np

from ciphershift.protocol import scaling


def test_integers_span_all_levels() -> None:
    assert scaling.to_integers(np.array([0.0, 0.49 / 15, 0.51 / 15, 1.0]), 15).tolist() == [0, 0, 1, 15]


def test_logits_are_rounded_to_their_step() -> None:
    turns = np.array([-0.11, 0.0, 0.26])
    assert np.allclose(scaling.to_logits(turns, 10.0, None), [-1.1, 0.0, 2.6])
    assert np.allclose(scaling.to_logits(turns, 10.0, 0.5), [-1.0, 0.0, 2.5])
