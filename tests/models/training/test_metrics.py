"""Areas and F1 against their definitions, counted out."""

import numpy as np
import pytest

from ciphershift.models.training.metrics import auc, f1


def test_the_area_is_the_chance_to_score_higher() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    score = np.round(labels + rng.normal(size=60), 1)  # with equal ones
    pairs = [(a > b) + (a == b) / 2 for a in score[labels == 1] for b in score[labels == 0]]
    assert auc(np.stack([np.zeros(60), score], axis=1), labels) == pytest.approx(np.mean(pairs))
    assert auc(np.eye(3)[[0, 1, 2]] * 9, np.array([0, 1, 2])) == 1.0


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 0, 0])
    precision, recall = 2 / 3, 2 / 4
    assert f1(predicted, labels) == pytest.approx(2 * precision * recall / (precision + recall))
    assert f1(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])) == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
