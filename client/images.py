"""Arrays as a model takes them, of its own shape: numbers from 0 to 1, or integers of raw values of any range."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ciphershift.client._wire import ModelProfile
from ciphershift.errors import BadShapeError, OutOfLevelsError
from ciphershift.protocol import scaling
from ciphershift.protocol.sequences import padded


def to_unit(images: ArrayLike, profile: ModelProfile) -> NDArray[np.float64]:
    """Returns numbers from 0 to 1 of shape [n, C, H, W], for series [n, C, L], for vectors [n, features].

    Args:
        images: uint8 from 0 to 255, or floats from 0 to 1; of the model's shape ([C, H, W] for images, where C may be left out if it is
            1; [C, L] for series, [features] for vectors), or many of these, [n, ...]. Of a model that takes sequences also one
            [features, own length], or many, which are padded.
        profile: of the model.

    Raises:
        BadShapeError: another shape.
        OutOfLevelsError: another type, or a value outside its range.
    """
    batch = _batch(images, profile)
    if batch.dtype == np.uint8:
        unit = batch / scaling.PIXEL_MAX
    elif np.issubdtype(batch.dtype, np.floating):
        unit = batch.astype(np.float64)
    else:
        raise OutOfLevelsError(f"images are of type {batch.dtype}: give uint8 from 0 to 255 or floats from 0 to 1")
    if not (np.all(unit >= 0.0) and np.all(unit <= 1.0)):
        raise OutOfLevelsError("images hold values outside 0 to 1: scale floats, or give uint8 from 0 to 255")
    return unit


def to_integers(values: ArrayLike, profile: ModelProfile) -> NDArray[np.float64]:
    """Returns what is encrypted for a model with an encoding of its own, whole numbers of shape [n, values].

    Args:
        values: raw, numbers of any kind in each feature's unit; shapes as for ``to_unit``.
        profile: of the model.

    Raises:
        BadShapeError: another shape.
        OutOfLevelsError: another type, or a value outside its feature's range, which the message names.
    """
    batch, encoding = _batch(values, profile), profile.encoding
    assert encoding is not None, "the model has an encoding"
    if not np.issubdtype(batch.dtype, np.integer) and not np.issubdtype(batch.dtype, np.floating):
        raise OutOfLevelsError(f"values are of type {batch.dtype}: give integers or floats")
    return encoding.integers(batch, profile.input_levels).reshape(len(batch), -1).astype(np.float64)


def _batch(values: ArrayLike, profile: ModelProfile) -> NDArray[Any]:
    """Samples [n, ...] of the model's shape. Raises BadShapeError."""
    shape = profile.sample_shape
    try:
        array = np.asarray(_padded(values, profile) if profile.input_sequences else values)
    except ValueError as error:  # what NumPy raises for rows of different lengths
        raise BadShapeError(f"the samples have different shapes, {profile.model} takes {_shown(shape)}") from error
    batch = array.reshape(-1, *shape) if _fits(array.shape, shape) else None
    if batch is None or not len(batch):
        raise BadShapeError(f"images have shape {list(array.shape)}, {profile.model} takes {_shown(shape)}")
    return batch


def _shown(shape: tuple[int, ...]) -> str:
    return f"[n, {', '.join(map(str, shape))}]"


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if shape in (wanted, (*shape[:1], *wanted)):
        return True
    return len(wanted) == 3 and wanted[0] == 1 and _fits(shape, wanted[1:])


def _padded(values: ArrayLike, profile: ModelProfile) -> list[NDArray[Any]] | NDArray[Any]:
    """Whole samples of one or many sequences, which may be whole samples already. Raises BadShapeError."""
    features, length = profile.sample_shape
    pieces = (
        [np.asarray(piece) for piece in cast("Iterable[Any]", values)] if np.iterable(values) else [np.asarray(values)]
    )
    if {piece.ndim for piece in pieces} == {1}:  # rows of one sequence
        pieces = [np.stack(pieces)]
    if all(piece.shape == profile.sample_shape for piece in pieces):
        return pieces
    if profile.encoding is None or profile.encoding.pixels:  # bytes stand for 0 to 1, as the presence's two values do
        pieces = [piece / scaling.PIXEL_MAX if piece.dtype == np.uint8 else piece for piece in pieces]
    return padded(pieces, length, features - 1)
