"""Images of any size, made to fit a model in the page, or refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

SEVEN = Image.open(Path(__file__).resolve().parents[3] / "client" / "samples" / "mnist-0-is-7.png").copy()
DIGITS = ((1, 28, 28), [str(digit) for digit in range(10)])
CLOTHES = ((1, 28, 28), ["shirt", "bag"])
COLOR = ((3, 32, 32), ["cat", "dog"])
SCRIPT = """
  import { readFileSync } from "node:fs";
  import { fit } from "./dist/fit.js";
  const [file, width, height, inputShape, classes, kind] = process.argv.slice(1);
  const image = { width: Number(width), height: Number(height), data: new Uint8ClampedArray(readFileSync(file)) };
  try {
    const profile = { model: "m", sampleShape: JSON.parse(inputShape), classes: JSON.parse(classes) };
    const { pixels, steps } = fit(image, profile, kind || undefined);
    console.log(JSON.stringify([Array.from(pixels), steps]));
  } catch (error) {
    console.log(JSON.stringify([error.code, error.message]));
  }
"""
Fit = Callable[..., tuple[Any, Any]]


@pytest.fixture
def fit(node: Callable[..., Any], tmp_path: Path) -> Fit:
    """Pixels [C, H, W] and steps, or an error's code and message."""

    def call(image: Image.Image, model: tuple[tuple[int, ...], list[str]], kind: str = "") -> tuple[Any, Any]:
        (tmp_path / "image").write_bytes(image.convert("RGBA").tobytes())
        first, second = node(SCRIPT, tmp_path / "image", *image.size, *map(json.dumps, model), kind)
        return (
            (np.array(first, dtype=np.uint8).reshape(model[0]), second) if isinstance(first, list) else (first, second)
        )

    return call


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])


def test_an_image_of_the_models_own_size_stays_as_it_is(fit: Fit) -> None:
    pixels, steps = fit(SEVEN, DIGITS)
    assert np.array_equal(pixels[0], np.asarray(SEVEN))
    assert steps == []


@pytest.mark.parametrize("paper", [0, 255])
def test_a_digit_anywhere_on_any_paper_becomes_as_mnist_has_it(fit: Fit, paper: int) -> None:
    image = Image.new("L", (500, 300), 0)
    image.paste(SEVEN.resize((84, 84), Image.Resampling.BICUBIC), (380, 20))
    pixels, steps = fit(ImageOps.invert(image) if paper else image, DIGITS)
    assert likeness(pixels[0], np.asarray(SEVEN)) > 0.9
    assert steps == ["resized", "centered", *(["inverted"] if paper else [])]


def test_a_large_drawing_is_as_good_as_a_small_one(fit: Fit) -> None:
    pixels, _ = fit(SEVEN.resize((1400, 1400), Image.Resampling.BICUBIC), DIGITS)
    assert likeness(pixels[0], np.asarray(SEVEN)) > 0.9


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_a_transparent_background_is_seen(fit: Fit, ink: int) -> None:
    image = Image.fromarray(np.dstack([np.full((28, 28, 3), ink, np.uint8), np.asarray(SEVEN)])).resize((280, 280))
    pixels, steps = fit(image, DIGITS)
    assert likeness(pixels[0], np.asarray(SEVEN)) > 0.9
    assert ("inverted" in steps) == (ink == 0)


def test_other_drawings_fill_the_image(fit: Fit) -> None:
    image = Image.new("L", (200, 100), 255)
    ImageDraw.Draw(image).rectangle((20, 20, 179, 79), fill=100)
    pixels, steps = fit(image, CLOTHES)
    assert pixels[0, 14].min() > 200
    assert pixels[0, 0].max() == 0
    assert "centered" not in steps


def test_photographs_are_taken_by_their_middle(fit: Fit) -> None:
    image = Image.new("RGB", (300, 100), "blue")
    ImageDraw.Draw(image).rectangle((100, 0, 199, 99), fill=(250, 20, 30))
    pixels, steps = fit(image, COLOR)
    assert pixels[:, 16, 16].tolist() == [250, 20, 30]
    assert pixels[2].max() < 100
    assert steps == ["resized"]
    gray, _ = fit(image, CLOTHES, "photograph")
    assert len(np.unique(gray[0, 2:-2, 2:-2])) == 1


def test_resizing_is_that_of_pillow(fit: Fit) -> None:
    noise = Image.fromarray(np.random.default_rng(4).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    pixels, _ = fit(noise, COLOR)
    here = np.asarray(noise.resize((32, 32), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert np.abs(pixels.astype(int) - here).max() <= 1


@pytest.mark.parametrize(("image", "why"), [("L", "empty"), ("RGBA", "fully transparent")])
def test_an_empty_image_is_refused(fit: Fit, image: str, why: str) -> None:
    code, message = fit(Image.new(image, (280, 280), 128 if image == "L" else (255, 255, 255, 0)), DIGITS)
    assert code == "bad_shape"
    assert why in message


def test_a_model_of_vectors_takes_no_image(fit: Fit) -> None:
    assert fit(SEVEN, ((784,), ["a"]))[0] == "bad_shape"
