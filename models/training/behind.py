"""Data as the secret part of a network takes them: what its public part makes of the images, as levels."""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ciphershift.he_layers.stem import Stem
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.training.data import Split
from ciphershift.protocol import scaling

PART = 500
"""Images at a time."""


def behind(stem: Stem, split: Split, folder: Path | None = None) -> Split:
    """The same labels, and the public part's output for each image, uint8 [count, ...] of its shape: 0 to 255 over the part's range.

    Args:
        stem: the public part.
        split: raw images.
        folder: where the result is kept for the next time, if it is given: a large part takes minutes.

    Raises:
        OutOfLevelsError, BadStemError, ConfigurationError: see Stem.unit.
    """
    if folder is None:
        return Split(images=_levels(stem, split), labels=split.labels)
    path = folder / f"behind-{_digest(stem, split)[:16]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, _levels(stem, split))
        partial.replace(path)
    return Split(images=np.load(path), labels=split.labels)


def _levels(stem: Stem, split: Split) -> NDArray[np.uint8]:
    parts = [
        scaling.to_integers(stem.unit(part.images / scaling.PIXEL_MAX), PIXEL_LEVELS).astype(np.uint8)
        for part in split.parts(PART)
    ]
    return np.concatenate(parts)


def _digest(stem: Stem, split: Split) -> str:
    digest = hashlib.sha256(json.dumps(stem.to_spec()).encode())
    digest.update(np.ascontiguousarray(split.images).tobytes())
    return digest.hexdigest()
