"""Public parts whose maps of a mirrored image are the image's maps, mirrored, perhaps in another order."""

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadStemError, OutOfLevelsError
from ciphershift.he_layers.stem import Shape, Stem

MOST_APART = 1e-3
"""Of two maps that are mirror images, over the range of their values: a quarter of one of 255 levels."""


def mirrored_channels(stem: Stem) -> NDArray[np.int64] | None:
    """For each map the one that holds its mirror image if an image (C, H, W) is mirrored, in pairs, [maps]; None if one has none.

    Found by trying images of noise, fine and coarse, dark, bright and of little contrast. A map that does not vary on them has no mirror
    image that could be found.

    Raises:
        ConfigurationError: the extra ``stem`` is not installed.
    """
    if not len(stem.input_shape) == len(stem.shape) == 3:
        return None
    images = _noise(stem.input_shape)
    try:
        maps, mirrored = stem.run(images), stem.run(images[..., ::-1])[..., ::-1]
    except (BadStemError, OutOfLevelsError):  # of noise, not of what it was made for
        return None
    spans = np.ptp(maps, axis=(0, 2, 3))
    if not spans.all():
        return None
    found = np.full(len(spans), -1)
    for channel in range(len(found)):
        if found[channel] < 0:
            both = (mirrored - maps[:, [channel]], maps - mirrored[:, [channel]])
            apart = np.maximum(*(np.abs(each).max(axis=(0, 2, 3)) for each in both))
            free = (apart <= MOST_APART * np.minimum(spans, spans[channel])) & (found < 0)
            other = channel if free[channel] else int(free.argmax())
            if not free[other]:
                return None
            found[channel], found[other] = other, channel
    return found


def _noise(shape: Shape) -> NDArray[np.float64]:
    """Images [8, *shape] from 0 to 1: fine noise and blocks of 4 x 4, each over all values, and dark, bright and of little contrast."""
    rng = np.random.default_rng(0)
    channels, height, width = shape
    coarse = rng.random((channels, -(-height // 4), -(-width // 4)))
    both = rng.random(shape), coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
    return np.array(
        [low + each * range_ for each in both for low, range_ in ((0, 1), (0, 0.1), (0.45, 0.1), (0.9, 0.1))]
    )
