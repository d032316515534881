"""Sequences of any length up to a network's own, as samples of one shape, so that the server does not learn how long they are.

Zeros go before a sequence, not behind it, so that a network's last state is that of the sequence's end; a last feature, the presence, is
1 where the sequence runs and 0 before it, by which a network learns to wait. All are encrypted alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError


def are_padded(samples: NDArray[Any]) -> bool:
    """Whether the last feature of samples [count, features + 1, length] may be that of ``padded``, but for rounding."""
    if samples.ndim != 3 or samples.shape[1] < 2:
        return False
    runs = np.rint(samples[:, -1])
    return bool(np.isin(runs, (0, 1)).all() and (np.diff(runs, axis=1) >= 0).all() and runs[:, -1].all())


def unpadded(samples: NDArray[Any]) -> list[NDArray[Any]]:
    """The sequences [features, own length] of padded samples [count, features + 1, length]; the inverse of ``padded``."""
    return [sample[:-1, np.rint(sample[-1]) == 1] for sample in samples]


def padded(sequences: Sequence[NDArray[Any]], length: int, features: int | None = None) -> NDArray[Any]:
    """Sequences [features, own length] as [count, features + 1, length], float64 if they are numbers.

    Args:
        sequences: of 1 to ``length`` steps, all with the same features.
        length: of the network's input.
        features: of each step, without the one that is added; by default those of the first sequence.

    Raises:
        BadShapeError: a sequence has no step or more than ``length``, or other features.
    """
    if not sequences:
        raise BadShapeError("there are no sequences; give at least one")
    features = sequences[0].shape[0] if features is None else features
    result = np.zeros((len(sequences), features + 1, length), dtype=np.result_type(np.float64, *sequences))
    for number, sequence in enumerate(sequences):
        if sequence.ndim != 2 or sequence.shape[0] != features or not 1 <= sequence.shape[1] <= length:
            raise BadShapeError(
                f"sequence {number} has the shape {list(sequence.shape)}; the network takes [{features} features, 1 to {length} steps], "
                "without the presence, which is added: cut longer sequences, leave out empty ones"
            )
        result[number, :features, length - sequence.shape[1] :] = sequence
        result[number, features, length - sequence.shape[1] :] = 1
    return result
