"""What a module does to its logits at its very end, which the client does after decryption: softmax, its logarithm, or a sigmoid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


OUTPUTS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "softmax": lambda logits: np.exp(_log_softmax(logits)),
    "log_softmax": _log_softmax,
    "sigmoid": lambda logits: np.exp(-np.logaddexp(0.0, -logits)),
}
"""By name, on logits [n, classes]."""
