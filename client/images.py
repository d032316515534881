"""Image arrays as a model takes them: numbers from 0 to 1, of the model's own shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ciphershift.client._wire import ModelProfile
from ciphershift.errors import BadShapeError, OutOfLevelsError
from ciphershift.protocol import scaling


def to_unit(images: ArrayLike, profile: ModelProfile) -> NDArray[np.float64]:
    """Returns numbers from 0 to 1 of shape [n, C, H, W], for series [n, C, L], for vectors [n, features].

    Args:
        images: uint8 from 0 to 255, or floats from 0 to 1; of the model's shape ([C, H, W] for images, where C may be left out if it is
            1; [C, L] for series, [features] for vectors), or many of these, [n, ...].
        profile: of the model.

    Raises:
        BadShapeError: another shape.
        OutOfLevelsError: another type, or a value outside its range.
    """
    array = np.asarray(images)
    shape = profile.sample_shape
    batch = array.reshape(-1, *shape) if _fits(array.shape, shape) else None
    if batch is None or not len(batch):
        raise BadShapeError(
            f"images have shape {list(array.shape)}, {profile.model} takes [n, {', '.join(map(str, shape))}]"
        )
    if array.dtype == np.uint8:
        unit = batch / scaling.PIXEL_MAX
    elif np.issubdtype(array.dtype, np.floating):
        unit = batch.astype(np.float64)
    else:
        raise OutOfLevelsError(f"images are of type {array.dtype}: give uint8 from 0 to 255 or floats from 0 to 1")
    if not (np.all(unit >= 0.0) and np.all(unit <= 1.0)):
        raise OutOfLevelsError("images hold values outside 0 to 1: scale floats, or give uint8 from 0 to 255")
    return unit


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if shape in (wanted, (*shape[:1], *wanted)):
        return True
    return len(wanted) == 3 and wanted[0] == 1 and _fits(shape, wanted[1:])
