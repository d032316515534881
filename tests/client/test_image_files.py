"""Image files of any kind: read, or refused with a reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ciphershift import errors
from ciphershift.client.image_files import read
from ciphershift.protocol import image_files

SAMPLES = Path(__file__).resolve().parents[2] / "client" / "samples"
SEVEN = SAMPLES / "mnist-0-is-7.png"


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])


def test_a_turned_photograph_is_put_upright() -> None:
    upright = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(upright).line((20, 20, 100, 20), fill=0, width=10)
    ImageDraw.Draw(upright).line((100, 20, 60, 110), fill=0, width=10)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees to the right
    file = io.BytesIO()
    upright.rotate(90).save(file, "JPEG", quality=95, exif=exif)
    turned = image_files.opened(file.getvalue(), "seven")
    assert likeness(np.asarray(turned.convert("L")), np.asarray(upright)) > 0.98


def test_what_is_no_image_is_refused() -> None:
    for data in (b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", bytes(1000)):
        with pytest.raises(errors.MalformedError, match="is not a supported image"):
            image_files.opened(data, "file")


def test_damage_anywhere_in_a_image_is_a_typed_error_or_another_image() -> None:
    whole = png(Image.open(SEVEN).resize((64, 64)))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        data[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        try:
            image_files.opened(bytes(data), "file")
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
        image_files.opened(bomb, "bomb")


def test_the_commands_take_images_of_the_models_size_alone(tmp_path: Path) -> None:
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    with pytest.raises(errors.BadShapeError, match="30x28, the model takes 28x28: resize it"):
        read([tmp_path / "wide.png"], (1, 28, 28))


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
    shown = np.asarray(image_files.opened(png(image), "seven").convert("L").resize((28, 28)))
    assert likeness(shown if ink else 255 - shown, seven) > 0.9


def test_an_image_that_is_transparent_all_over_is_refused() -> None:
    with pytest.raises(errors.BadShapeError, match="fully transparent"):
        image_files.opened(png(Image.new("RGBA", (28, 28), (255, 255, 255, 0))), "nothing")
