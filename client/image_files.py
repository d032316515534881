"""Image files in, named classes out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ciphershift.client._wire import ModelProfile, Prediction
from ciphershift.errors import BadShapeError, MalformedError, OutOfLevelsError, TooLargeError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow reads more, some of them through external programs
MAX_PIXELS = 40_000_000  # 120 MB when decoded; most cameras make fewer

Shape = tuple[int, int, int]  # C, H, W


def read(files: Sequence[Path], input_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Reads image files of the model's own size; returns uint8 [n, C, H, W].

    Raises:
        MalformedError, TooLargeError: see `opened`.
        BadShapeError: an image is not of the model's size, or the model takes no images.
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


def opened(data: bytes, name: str) -> Image.Image:
    """Decodes an image: upright, 8 bits per channel, in RGB; dark ink on a transparent background is put on white, light ink on black.

    Raises:
        MalformedError: the bytes are no image of a supported format, or a damaged one.
        OutOfLevelsError: pixels are floating-point numbers, or integers beyond 16 bits.
        TooLargeError: it has more than MAX_PIXELS pixels.
    """
    try:
        file = Image.open(io.BytesIO(data), formats=FORMATS)
        if file.width * file.height > MAX_PIXELS:
            raise Image.DecompressionBombError  # Pillow's own limit is higher
        image = _eight_bits(ImageOps.exif_transpose(file), name)
        return _opaque(image, name).convert("RGB")
    except UnidentifiedImageError:
        raise MalformedError(
            f"{name} is not a supported image: use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(f"{name} has more than {MAX_PIXELS} pixels: make it smaller") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's readers raise
        raise MalformedError(f"{name} is damaged ({error}): re-save it") from None


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scales 16-bit gray to 8 bits, which Pillow would clip instead."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise OutOfLevelsError(
            f"{name} has pixels of mode {image.mode} from {pixels.min():g} to {pixels.max():g}: save it with 8 or 16 bits per channel"
        )
    return Image.fromarray(np.rint(pixels / (0xFFFF / 0xFF)).astype(np.uint8))


def _opaque(image: Image.Image, name: str) -> Image.Image:
    """Puts an image with transparent parts on the background that its ink stands out from."""
    if not image.has_transparency_data:
        return image
    layered = image.convert("RGBA")
    alpha = np.asarray(layered.getchannel("A"), dtype=np.float64)
    if not alpha.any():
        raise BadShapeError(f"{name} is fully transparent: draw something, or choose another image")
    is_light = np.average(np.asarray(layered.convert("L")), weights=alpha) > 127.5
    return Image.alpha_composite(Image.new("RGBA", image.size, "black" if is_light else "white"), layered)


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
