"""Between pixels and integers, and between torus values and logits: the same on the client, in a simulation and in the clear."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIXEL_MAX = 255.0


def to_integers(unit: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Rounds pixel values from 0 to 1 to whole numbers from 0 to `levels`."""
    rounded: NDArray[np.float64] = np.rint(unit * levels)
    return rounded


def to_logits(turns: NDArray[np.float64], turns_to_logits: float, logit_step: float | None) -> NDArray[np.float64]:
    """Converts decrypted torus values (turns) to logits.

    Args:
        turns: torus values.
        turns_to_logits: logits per turn.
        logit_step: logits are whole multiples of it, and are rounded to them; None where they carry noise.
    """
    logits = turns * turns_to_logits
    return logits if logit_step is None else np.rint(logits / logit_step) * logit_step
