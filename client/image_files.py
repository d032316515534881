"""Pictures in, named classes out: files as the commands take them, and pictures of any size made to fit a model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ciphershift.client._wire import ModelProfile
from ciphershift.errors import BadShapeError, MalformedError, TooLargeError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow knows more, some of them through programs of others
MAX_PIXELS = 40_000_000  # 120 MB when unpacked; most cameras make fewer
DIGITS = tuple("0123456789")
_INK_SIDE = 20 / 28  # what a digit fills of the side: so MNIST was made
_WORKING_SIDE = 1024  # pixels that are looked at to find the ink
_PAPER = 0.25  # of the way from paper to ink; what is paler is paper

Shape = tuple[int, int, int]  # C, H, W


def read(files: Sequence[Path], shape: Shape) -> NDArray[np.uint8]:
    """Returns picture files, of the model's own size, as uint8 [n, C, H, W].

    Raises:
        MalformedError, TooLargeError: see `opened`.
        BadShapeError: a picture is not of the model's size.
    """
    pictures = []
    for file in files:
        picture = opened(file.read_bytes(), str(file))
        if (picture.height, picture.width) != shape[1:]:
            raise BadShapeError(
                f"{file} is {picture.width}x{picture.height}, the model takes {shape[2]}x{shape[1]}: resize it"
            )
        pictures.append(_array(picture, shape))
    return np.stack(pictures)


def fitted(data: bytes, name: str, profile: ModelProfile) -> tuple[NDArray[np.uint8], str]:
    """Returns a picture of any size as a model takes it, uint8 [C, H, W], and what was done to it.

    A picture of the model's own size stays as it is. Of any other, colour models get the middle; the others get light ink on black,
    and models of digits the digit alone, in the size and the place that MNIST gives it.

    Raises:
        MalformedError, TooLargeError: see `opened`.
        BadShapeError: there is nothing on the picture.
    """
    picture = opened(data, name)
    channels, height, width = profile.input_shape
    if (picture.height, picture.width) == (height, width):
        return _array(picture, profile.input_shape), "as it is"
    was = f"{picture.width}×{picture.height}, now {width}×{height}"
    if channels != 1:
        return _array(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS), profile.input_shape), was
    ink, inverted = _ink(picture, name)
    centred = profile.classes == DIGITS
    inner = _INK_SIDE if centred else 1.0
    small = _scaled(ink, round(height * inner), round(width * inner))
    placed = _placed(small, (height, width), centred)
    return placed[None], was + (", centred" if centred else "") + (", inverted" if inverted else "")


def opened(data: bytes, name: str) -> Image.Image:
    """Returns a picture upright and in RGB, on white where it is transparent.

    Raises:
        MalformedError: the bytes are no picture of the formats that are read here.
        TooLargeError: it has more pixels than a picture needs to have.
    """
    try:
        file = Image.open(io.BytesIO(data), formats=FORMATS)
        if file.width * file.height > MAX_PIXELS:
            raise Image.DecompressionBombError  # Pillow's own limit is higher
        picture = ImageOps.exif_transpose(file)
        if picture.has_transparency_data:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        return picture.convert("RGB")
    except UnidentifiedImageError:
        raise MalformedError(f"{name} is no picture: give {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLargeError(f"{name} has more than {MAX_PIXELS} pixels: make it smaller") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's readers raise
        raise MalformedError(f"{name} is damaged ({error}): save it anew") from None


def describe(name: str, logits: NDArray[np.float64], profile: ModelProfile) -> str:
    """Returns the line that tells what a picture is."""
    first, second = np.argsort(logits)[::-1][:2]
    classes = profile.classes
    return f"{name}: {classes[first]} (logit {logits[first]:.2f}; next {classes[second]} with {logits[second]:.2f})"


def _array(picture: Image.Image, shape: Shape) -> NDArray[np.uint8]:
    pixels = np.asarray(picture.convert("L" if shape[0] == 1 else "RGB"), dtype=np.uint8)
    return pixels.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)


def _ink(picture: Image.Image, name: str) -> tuple[NDArray[np.float64], bool]:
    """Ink from 0 to 1, without the paper around it, and whether it was dark on light."""
    picture.thumbnail((_WORKING_SIDE, _WORKING_SIDE))
    grey = np.asarray(picture.convert("L"), dtype=np.float64) / 255
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    inverted = bool(np.median(border) > 0.5)
    if inverted:
        grey, border = 1 - grey, 1 - border
    paper = float(np.median(border))
    pale = paper + _PAPER * (grey.max() - paper)
    ink = np.clip((grey - pale) / max(grey.max() - pale, 1e-9), 0, 1)
    rows, columns = ink.any(axis=1).nonzero()[0], ink.any(axis=0).nonzero()[0]
    if grey.max() - paper < 0.1 or not len(rows):
        raise BadShapeError(f"{name} shows nothing: draw or choose something first")
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], inverted


def _scaled(ink: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """Ink as large as fits into a box, 0 to 255."""
    factor = min(height / ink.shape[0], width / ink.shape[1])
    size = (max(round(ink.shape[1] * factor), 1), max(round(ink.shape[0] * factor), 1))
    picture = Image.fromarray(np.rint(ink * 255).astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)


def _placed(small: NDArray[np.uint8], size: tuple[int, int], by_mass: bool) -> NDArray[np.uint8]:
    """The small picture on black, its centre of mass or its middle in the middle."""
    canvas = np.zeros(size, dtype=np.uint8)
    corner = []
    for axis in (0, 1):
        profile = small.sum(axis=1 - axis, dtype=np.float64)
        length = len(profile)
        centre = float(np.arange(length) @ profile / profile.sum()) if by_mass else length / 2
        corner.append(int(np.clip(round(size[axis] / 2 - centre), 0, size[axis] - length)))
    top, left = corner
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas
