"""Arrays as a model takes them, of its own shape: numbers from 0 to 1, or integers of raw values of any range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ciphershift.client._wire import ModelProfile
from ciphershift.errors import BadShapeError, OutOfLevelsError
from ciphershift.protocol import scaling
from ciphershift.protocol.sequences import are_padded, padded


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
        values: raw, numbers of any kind in each feature's unit; shapes as for ``to_unit``. Columns of a data frame, and the places of a
            series of pandas with names, are taken by their names where the features of a vector have some.
        profile: of the model.

    Raises:
        BadShapeError: another shape, or a data frame lacks a feature or has one twice.
        OutOfLevelsError: another type, or a value outside its feature's range, which the message names.
    """
    encoding = profile.encoding
    assert encoding is not None, "the model has an encoding"
    batch = _batch(_in_order(values, encoding.names) if len(profile.sample_shape) == 1 else values, profile)
    if not np.issubdtype(batch.dtype, np.integer) and not np.issubdtype(batch.dtype, np.floating):
        raise OutOfLevelsError(f"values are of type {batch.dtype}: give integers or floats")
    return encoding.integers(batch, profile.input_levels).reshape(len(batch), -1).astype(np.float64)


def _in_order(values: Any, names: Sequence[str]) -> Any:
    """Columns of a data frame, or the places of a pandas Series, in the order of the features.

    Raises:
        BadShapeError: one is missing, or there twice.
        OutOfLevelsError: one holds something else than numbers.
    """
    is_row = hasattr(values, "iloc") and not hasattr(values, "columns")
    found = list(values.keys() if is_row else getattr(values, "columns", ()))
    if not names or not any(isinstance(name, str) for name in found):
        return values
    if missing := [name for name in names if found.count(name) != 1]:
        raise BadShapeError(
            f"the data frame has {found.count(missing[0])} columns {missing[0]!r}; the model takes {', '.join(names)}, each once"
        )
    try:
        return np.asarray(values[list(names)], dtype=np.float64)  # columns of several types are objects otherwise
    except (TypeError, ValueError) as error:
        raise OutOfLevelsError(f"a column of the data frame holds something else than numbers ({error})") from error


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
        samples = np.stack(pieces)
        if samples.dtype.kind in "iuf" and not _is_padded(samples, profile):
            raise BadShapeError(
                f"a sample of shape {list(profile.sample_shape)} holds the presence as its last feature, 0 before the sequence and 1 "
                f"where it runs, up to the end; give sequences of {features - 1} features, and it is added"
            )
        return samples
    if _is_of_pixels(profile):
        pieces = [piece / scaling.PIXEL_MAX if piece.dtype == np.uint8 else piece for piece in pieces]
    return padded(pieces, length, features - 1)


def _is_padded(samples: NDArray[Any], profile: ModelProfile) -> bool:
    """Whether their last feature is 0 and then 1, but for the rounding of values that were decoded."""
    one = scaling.PIXEL_MAX if samples.dtype == np.uint8 and _is_of_pixels(profile) else 1
    presence = samples[:, -1] / one
    step = profile.encoding.step[-1] if profile.encoding else 1 / profile.input_levels
    return bool((np.abs(presence - np.rint(presence)) <= step / 2).all()) and are_padded(samples / one)


def _is_of_pixels(profile: ModelProfile) -> bool:
    """Whether bytes stand for 0 to 1, as the presence's two values do."""
    return profile.encoding is None or profile.encoding.pixels
