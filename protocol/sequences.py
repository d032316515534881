"""Sequences of any length up to a network's own, as samples of one shape, so that the server does not learn how long they are.

Zeros go before a sequence, not behind it, so that a network's last state is that of the sequence's end; a further feature is 1 where the
sequence runs and 0 before it, by which a network learns to wait. All are encrypted alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError


def padded(sequences: Sequence[NDArray[Any]], length: int) -> NDArray[np.float64]:
    """Sequences [features, own length] as [count, features + 1, length].

    Args:
        sequences: of 1 to ``length`` steps, all with the same features.
        length: of the network's input.

    Raises:
        BadShapeError: a sequence has no step or more than ``length``, or other features than the first.
    """
    if not sequences:
        raise BadShapeError("there are no sequences; give at least one")
    features = sequences[0].shape[0]
    result = np.zeros((len(sequences), features + 1, length))
    for number, sequence in enumerate(sequences):
        if sequence.ndim != 2 or sequence.shape[0] != features or not 1 <= sequence.shape[1] <= length:
            raise BadShapeError(
                f"sequence {number} has the shape {sequence.shape}; the network takes ({features}, 1 to {length}): cut it"
            )
        result[number, :features, length - sequence.shape[1] :] = sequence
        result[number, features, length - sequence.shape[1] :] = 1
    return result
