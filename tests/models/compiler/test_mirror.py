"""Which map of a public part holds the mirror image of which, if the image is mirrored."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from ciphershift.models.compiler.mirror import mirrored_channels
from tests.support import stems
from tests.support.stems import stem

LOG = helper.make_node("Log", ["sums"], ["out"])
NEGATIVE, FAINT = np.full((1, 1, 2, 2), -1, dtype=np.float32), np.float32(1e-3)
OTHER = stems.LEFT[..., ::-1]
MIRRORS: dict[str, tuple[tuple[NDArray[np.float32], ...], list[int] | None]] = {
    "itself": ((stems.KERNEL,), [0]),
    "pairs": ((stems.LEFT, stems.KERNEL, OTHER), [2, 1, 0]),
    "twice the same": ((stems.KERNEL, stems.KERNEL), [0, 1]),
    "the same pair twice": ((stems.LEFT, stems.LEFT, OTHER, OTHER), [2, 3, 0, 1]),
    "one of a pair": ((stems.LEFT, stems.KERNEL), None),
    "one for two": ((stems.LEFT, stems.LEFT, OTHER), None),
    "faint beside others": ((stems.KERNEL, FAINT * stems.LEFT), None),
    "a faint pair": ((stems.KERNEL, FAINT * stems.LEFT, FAINT * OTHER), [0, 2, 1]),
    "a map that is always zero": ((stems.KERNEL, NEGATIVE), None),
}


@pytest.mark.parametrize("kind", MIRRORS)
def test_maps_of_mirrored_samples_are_found_in_pairs(kind: str) -> None:
    kernels, wanted = MIRRORS[kind]
    count = len(kernels)
    made = stem(stems.kernels(*kernels), shape=(count, 8, 8), low=(0.0,) * count, high=(1.0,) * count)
    found = mirrored_channels(made)
    assert (None if found is None else found.tolist()) == wanted


def test_what_is_no_image_or_has_no_value_for_noise_has_no_mirror_image() -> None:
    assert mirrored_channels(stem(stems.kernels(stems.KERNEL, after=LOG))) is None  # of a negative number
    series = stem(input_shape=(256,), shape=(8, 8))
    assert mirrored_channels(series) is None
