"""Pictures of any kind, made to fit a model, or refused with a reason."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from ciphershift import errors
from ciphershift.client import image_files
from ciphershift.client._wire import ModelProfile

SAMPLES = Path(__file__).resolve().parents[2] / "client" / "samples"
SEVEN = SAMPLES / "mnist-0-is-7.png"


def profile(shape: tuple[int, int, int], classes: tuple[str, ...]) -> ModelProfile:
    fields: dict[str, Any] = dict.fromkeys(("bootstraps", "key_bytes", "upload_bytes"), 0)
    return ModelProfile(
        model="m",
        version="1",
        program_digest="00" * 32,
        profile="fast",
        params_id="00" * 32,
        security_bits=128.0,
        input_shape=shape,
        input_levels=15,
        input_delta=1 / 256,
        classes=classes,
        turns_to_logits=1.0,
        logit_step=None,
        download_bytes=1,
        max_batch=1,
        estimated_seconds=None,
        **fields,
    )


DIGITS = profile((1, 28, 28), image_files.DIGITS)
CLOTHES = profile((1, 28, 28), ("shirt", "bag"))
COLOR = profile((3, 32, 32), ("cat", "dog"))


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])


def test_a_image_of_the_models_own_size_stays_as_it_is() -> None:
    fitted, done = image_files.fitted(SEVEN.read_bytes(), "seven", DIGITS)
    assert np.array_equal(fitted, image_files.read([SEVEN], (1, 28, 28))[0])
    assert done == "as it is"


@pytest.mark.parametrize("paper", [0, 255])
def test_a_digit_anywhere_on_any_paper_becomes_as_mnist_has_it(paper: int) -> None:
    digit = Image.open(SEVEN).resize((84, 84), Image.Resampling.BICUBIC)
    image = Image.new("L", (500, 300), 0)
    image.paste(digit, (380, 20))
    fitted, done = image_files.fitted(png(ImageOps.invert(image) if paper else image), "seven", DIGITS)
    assert likeness(fitted, image_files.read([SEVEN], (1, 28, 28))[0]) > 0.9
    assert ("inverted" in done) == bool(paper)
    assert "500×300, now 28×28, centered" in done


def test_transparent_paper_is_white() -> None:
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    ImageDraw.Draw(image).line((50, 10, 50, 90), fill=(0, 0, 0, 255), width=8)
    fitted, _ = image_files.fitted(png(image), "one", DIGITS)
    assert fitted[0, 14, 13:15].max() > 200
    assert fitted[0, :, 0].max() == 0


def test_a_turned_photograph_is_put_upright() -> None:
    upright = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(upright).line((20, 20, 100, 20), fill=0, width=10)
    ImageDraw.Draw(upright).line((100, 20, 60, 110), fill=0, width=10)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees to the right
    file = io.BytesIO()
    upright.rotate(90).save(file, "JPEG", quality=95, exif=exif)
    turned, _ = image_files.fitted(file.getvalue(), "seven", DIGITS)
    assert likeness(turned, image_files.fitted(png(upright), "seven", DIGITS)[0]) > 0.98


def test_other_gray_models_get_the_whole_image() -> None:
    image = Image.new("L", (200, 100), 255)
    ImageDraw.Draw(image).rectangle((20, 20, 179, 79), fill=100)
    fitted, done = image_files.fitted(png(image), "bag", CLOTHES)
    assert fitted[0, 14].min() > 200
    assert fitted[0, 0].max() == 0
    assert "centered" not in done


def test_color_models_get_the_middle_in_color() -> None:
    image = Image.new("RGB", (300, 100), "blue")
    ImageDraw.Draw(image).rectangle((100, 0, 199, 99), fill=(250, 20, 30))
    fitted, _ = image_files.fitted(png(image), "cat", COLOR)
    assert fitted.shape == (3, 32, 32)
    assert fitted[:, 16, 16].tolist() == [250, 20, 30]
    assert fitted[2].max() < 100


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_image_is_refused(value: int) -> None:
    with pytest.raises(errors.BadShapeError, match="is empty"):
        image_files.fitted(png(Image.new("L", (280, 280), value)), "empty", DIGITS)


def test_what_is_no_image_is_refused() -> None:
    for data in (b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", bytes(1000)):
        with pytest.raises(errors.MalformedError, match="is not a supported image"):
            image_files.fitted(data, "file", DIGITS)


def test_damage_anywhere_in_a_image_is_a_typed_error_or_another_image() -> None:
    whole = png(Image.open(SEVEN).resize((64, 64)))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        try:
            image_files.fitted(bytes(data), "file", DIGITS)
        except errors.CiphershiftError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("side", [6_400, 9_600, 50_000])  # beyond our limit, Pillow's warning, Pillow's error
def test_a_image_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(errors.TooLargeError, match="bomb has more than"):
        image_files.fitted(bomb, "bomb", DIGITS)


def test_the_commands_take_images_of_the_models_size_alone(tmp_path: Path) -> None:
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    with pytest.raises(errors.BadShapeError, match="30x28, the model takes 28x28: resize it"):
        image_files.read([tmp_path / "wide.png"], (1, 28, 28))


def test_sixteen_bits_become_eight() -> None:
    ramp = np.arange(784, dtype=np.float64).reshape(28, 28) / 783
    eight = image_files.opened(png(Image.fromarray(np.rint(ramp * 255).astype(np.uint8))), "ramp")
    sixteen = image_files.opened(png(Image.fromarray(np.rint(ramp * 65535).astype(np.uint16))), "ramp")
    assert np.abs(np.asarray(eight, dtype=int) - np.asarray(sixteen, dtype=int)).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_refused(mode: str) -> None:
    values = np.array([[0, 70_000]], dtype=np.float32 if mode == "F" else np.int32)
    with pytest.raises(errors.OutOfLevelsError, match="8 or 16 bits"):
        image_files._eight_bits(Image.fromarray(values, mode=mode), "odd")


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_a_transparent_background_is_seen(ink: int) -> None:
    """White ink lands on black, black ink on white: either way the digit is the one that was drawn."""
    seven = np.asarray(Image.open(SEVEN).convert("L"))
    image = Image.fromarray(np.dstack([np.full((28, 28, 3), ink, np.uint8), seven])).resize((280, 280))
    fitted, done = image_files.fitted(png(image), "seven", DIGITS)
    assert likeness(fitted, seven[None]) > 0.9
    assert ("inverted" in done) == (ink == 0)


def test_an_image_that_is_transparent_all_over_is_refused() -> None:
    with pytest.raises(errors.BadShapeError, match="fully transparent"):
        image_files.opened(png(Image.new("RGBA", (28, 28), (255, 255, 255, 0))), "nothing")
