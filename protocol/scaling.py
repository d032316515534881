"""Between pixels and integers, and between torus values and logits: the same on the client, in a simulation and in the clear."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float64, np.int32)

PIXEL_MAX = 255.0
MOST_REFINEMENT = 256
"""By which values are multiplied that are answered twice; an answer's noise, 2^-12 turns, then stays eight deviations below half a turn."""


def to_integers(unit: NDArray[np.float64], levels: int) -> NDArray[np.float64]:
    """Rounds pixel values from 0 to 1 to whole numbers from 0 to `levels`."""
    rounded: NDArray[np.float64] = np.rint(unit * levels)
    return rounded


def to_logits(
    turns: NDArray[np.float64], turns_to_logits: float, logit_step: float | None, refinement: int | None = None
) -> NDArray[np.float64]:
    """Converts decrypted torus values (turns) to logits.

    Args:
        turns: torus values, [..., answer_values].
        turns_to_logits: logits per turn.
        logit_step: logits are whole multiples of it, and are rounded to them; None where they carry noise.
        refinement: by which values are multiplied that are answered twice; None where they are answered once.
    """
    logits = (refined(turns, refinement) if refinement else turns) * turns_to_logits
    return logits if logit_step is None else np.rint(logits / logit_step) * logit_step


def answer_values(classes: int, refinement: int | None) -> int:
    """How many values an answer has for so many logits."""
    return classes * (2 if refinement else 1)


def answered(values: NDArray[Number], refinement: int | None, axis: int = -1) -> NDArray[Number]:
    """Values as they are answered: themselves, and behind them all of them `refinement` times as large, if there is one."""
    return np.concatenate([values, values * values.dtype.type(refinement)], axis=axis) if refinement else values


def refined(turns: NDArray[np.float64], refinement: int) -> NDArray[np.float64]:
    """Values that were answered twice: as they are, and `refinement` times as large modulo one turn.

    The second answer has the digits that the noise of the first one hides, the first one says how many turns the second lacks:
    (fine + rint(refinement * coarse - fine)) / refinement. What is left is the second's noise, divided by `refinement`. Nothing is refused:
    a client must not react to what it decrypted.

    Args:
        turns: [..., 2n], as `answered` orders them.
        refinement: the factor.

    Returns:
        Turns [..., n].
    """
    coarse, fine = np.split(turns, 2, axis=-1)
    joined: NDArray[np.float64] = (fine + np.rint(refinement * coarse - fine)) / refinement
    return joined
