"""How good answers are: accuracy, area under the curve and F1 of classes, R² of numbers."""

import numpy as np
from numpy.typing import NDArray

Targets = NDArray[np.int64] | NDArray[np.float64]
"""Classes, or numbers of a regression."""


def score(answers: NDArray[np.floating], targets: Targets) -> float:
    """Accuracy for classes, R² for numbers.

    Args:
        answers: logits [count, classes]; one column is the logit of the second of two classes, or the number itself.
        targets: [count].
    """
    if targets.dtype.kind == "f":
        return r2(answers[:, 0], np.asarray(targets, dtype=np.float64))
    predicted = answers.argmax(1) if answers.shape[1] > 1 else answers[:, 0] > 0
    return float((predicted == targets).mean())


def r2(predicted: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Share of the targets' variance that is explained: 1 - residual / total sum of squares; below 0 where their mean is nearer."""
    total = float(((targets - targets.mean()) ** 2).sum())
    return 1 - float(((predicted - targets) ** 2).sum()) / total if total else float("nan")


def auc(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Area under the receiver operating characteristic, of several classes the mean of each against all others.

    It is the chance that a sample of the class has a higher score than another one; equal scores count half (Hanley and McNeil 1982). The
    score is the class's probability (softmax).

    Args:
        logits: [count, classes], two classes or more.
        labels: [count].
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    scores = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    present = [label for label in range(logits.shape[1]) if 0 < (labels == label).sum() < len(labels)]
    areas = [_area(scores[:, label], labels == label) for label in present]
    return float(np.mean(areas)) if areas else float("nan")


def _area(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    hits = int(positive.sum())
    return float((rank[positive].sum() - hits * (hits + 1) / 2) / (hits * (len(scores) - hits)))


def f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Harmonic mean of precision and recall: of two classes that of the second, of several the mean over all.

    Args:
        predicted: [count].
        labels: [count].
    """
    classes = [1] if labels.max(initial=0) <= 1 else sorted(set(labels.tolist()))
    found = []
    for label in classes:
        right = int(((predicted == label) & (labels == label)).sum())
        named = int((predicted == label).sum() + (labels == label).sum())
        found.append(2 * right / named if named else 1.0)
    return float(np.mean(found))
