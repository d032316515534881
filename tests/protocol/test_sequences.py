"""Sequences of several lengths as samples of one shape."""

import numpy as np
import pytest

from ciphershift.errors import BadShapeError
from ciphershift.protocol.sequences import are_padded, padded

LONGEST = 5


@pytest.mark.parametrize("length", [1, 2, LONGEST])
def test_zeros_go_before_a_sequence_and_a_feature_says_where_it_runs(length: int) -> None:
    sequence = np.arange(1.0, 2 * length + 1).reshape(2, length)
    (sample,) = padded([sequence], LONGEST)
    assert sample.shape == (3, LONGEST)
    assert np.array_equal(sample[:2, LONGEST - length :], sequence)
    assert not sample[:, : LONGEST - length].any()
    assert sample[2].sum() == length and sample[2, -1] == 1


@pytest.mark.parametrize("shape", [(2, LONGEST + 1), (2, 0), (3, 2), (2,)])
def test_other_sequences_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadShapeError, match="sequence 1 has the shape"):
        padded([np.zeros((2, 3)), np.zeros(shape)], LONGEST)


def test_no_sequences_are_refused() -> None:
    with pytest.raises(BadShapeError, match="at least one"):
        padded([], LONGEST)


def test_padded_samples_are_told_from_others() -> None:
    samples = padded([np.ones((2, 1)), np.ones((2, 3)), np.ones((2, LONGEST))], LONGEST)
    assert are_padded(samples)
    assert are_padded(samples + 0.01)
    for wrong in (samples[:, :, ::-1], samples[:, ::-1] * 2, samples[:, :, :-1] * 0, samples[:, -1:], samples[:, -1]):
        assert not are_padded(wrong)
