"""Image files as pixels: one way for clients and for training, so that a network learns from what it will be sent."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ciphershift.errors import BadShapeError, MalformedError, OutOfLevelsError, TooLargeError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow reads more, some of them through external programs
MAX_PIXELS = 40_000_000  # 120 MB when decoded; most cameras make fewer
GRAY = ("1", "L", "LA", "La", "I", "F")
"""Pillow's modes of one channel, beside those of 16 bits and that of transparency."""


def opened(data: bytes, name: str) -> Image.Image:
    """Decodes an image: upright, 8 bits per channel, of mode L if the file has one channel, otherwise RGB.

    Dark ink on a transparent background is put on white, light ink on black.

    Raises:
        MalformedError: the bytes are no image of a supported format, or a damaged one.
        BadShapeError: it is transparent all over.
        OutOfLevelsError: pixels are floating-point numbers, or integers beyond 16 bits.
        TooLargeError: it has more than MAX_PIXELS pixels.
    """
    try:
        file = Image.open(io.BytesIO(data), formats=FORMATS)
        if file.width * file.height > MAX_PIXELS:
            raise Image.DecompressionBombError  # Pillow's own limit is higher
        mode = "L" if file.mode in GRAY or file.mode.startswith("I;16") else "RGB"
        image = _eight_bits(ImageOps.exif_transpose(file), name)
        return _opaque(image, name).convert(mode)
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
