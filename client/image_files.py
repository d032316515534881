"""Image files in, named classes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ciphershift.client._wire import ModelProfile, Prediction
from ciphershift.errors import BadShapeError
from ciphershift.protocol.image_files import opened

Shape = tuple[int, int, int]  # C, H, W


def read(files: Sequence[Path], input_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads image files of the model's own size; returns uint8 [n, C, H, W].

    Raises:
        MalformedError, OutOfLevelsError, TooLargeError: see protocol.image_files.opened.
        BadShapeError: an image is transparent all over, or not of the model's size, or the model takes no images.
    """
    shape = _image_shape(input_shape)
    images = []
    for file in files:
        image = opened(file.read_bytes(), str(file))
        if (image.height, image.width) != shape[1:]:
            raise BadShapeError(
                f"{file} is {image.width}x{image.height}, the model takes {shape[2]}x{shape[1]}: resize it"
            )
        images.append(_array(image, shape))
    return np.stack(images)


def rows(prediction: Prediction) -> Iterator[Prediction]:
    """Yields what a prediction of several images says of each; of several outputs, by name."""
    if isinstance(prediction, dict):
        for values in zip(*prediction.values(), strict=True):
            yield dict(zip(prediction, values, strict=True))
    else:
        yield from prediction


def describe(name: str, row: Prediction, profile: ModelProfile) -> str:
    """Returns one line with the predicted class of an image, or with what each of several outputs says."""
    said, start = [], 0
    for output, values in (row if isinstance(row, dict) else {"": row}).items():
        logits = np.reshape(values, -1)
        said.append(f"{output} {_best(logits, profile.classes[start : start + len(logits)])}".strip())
        start += len(logits)
    return f"{name}: {'; '.join(said)}"


def record(name: str, row: Prediction, profile: ModelProfile) -> dict[str, Any]:
    """Returns the same for programs: the sample, and by the name of each output (`logits` for an only one) the logits of all classes."""
    outputs, start = {}, 0
    for output, values in (row if isinstance(row, dict) else {"logits": row}).items():
        logits = np.reshape(values, -1)
        classes = profile.classes[start : start + len(logits)]
        outputs[output] = [
            {"class": known, "logit": float(logit)} for known, logit in zip(classes, logits, strict=True)
        ]
        start += len(logits)
    return {"sample": name, "outputs": outputs}


def _best(logits: NDArray[np.float64], classes: Sequence[str]) -> str:
    """The greatest of several logits and the next one; an only one with its value."""
    if len(logits) == 1:
        return f"{classes[0]} ({logits[0]:.2f})"
    first, second = np.argsort(logits)[::-1][:2]
    return f"{classes[first]} (logit {logits[first]:.2f}; next {classes[second]} with {logits[second]:.2f})"


def _image_shape(shape: tuple[int, ...]) -> Shape:
    """(C, H, W) of a model for gray or color images. Raises BadShapeError for any other model."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise BadShapeError(
            f"the model takes values of shape {list(shape)}, not image files: call Client.predict with an array"
        )
    return shape[0], shape[1], shape[2]


def _array(image: Image.Image, shape: Shape) -> NDArray[np.uint8]:
    pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), dtype=np.uint8)
    return pixels.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)
