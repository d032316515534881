"""Picture files in, named classes out: what the commands show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from client.protocol import ModelProfile


def read(files: Sequence[Path], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Returns pictures as uint8 [n, C, H, W].

    Raises:
        typer.BadParameter: a file is not a picture, or not of the model's size.
    """
    return np.stack([_read(file, shape) for file in files])


def _read(file: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    try:
        picture = Image.open(file).convert("L" if shape[0] == 1 else "RGB")
    except UnidentifiedImageError:
        raise typer.BadParameter(f"{file} is not a picture that Pillow can read") from None
    if (picture.height, picture.width) != shape[1:]:
        raise typer.BadParameter(
            f"{file} is {picture.width}x{picture.height}, the model takes {shape[2]}x{shape[1]}: resize it"
        )
    return np.asarray(picture, dtype=np.uint8).reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)


def describe(name: str, logits: NDArray[np.float64], profile: ModelProfile) -> str:
    """Returns the line that tells what a picture is."""
    first, second = np.argsort(logits)[::-1][:2]
    classes = profile.classes
    return f"{name}: {classes[first]} (logit {logits[first]:.2f}; next {classes[second]} with {logits[second]:.2f})"
