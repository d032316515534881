"""How raw values become the integers that are encrypted: each feature with its own zero and step, on the client as in the clear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import OutOfLevelsError, ProgramError

BYTE_MAX = 255.0
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """A feature's integer is rint((raw - origin) / step), from ``lowest`` to ``lowest + levels``; a feature is a place on the first axis.

    Attributes:
        origin: raw value of the integer 0, for each feature.
        step: raw distance of two integers, for each feature.
        lowest: least integer, -255 to 0, for each feature.
        names: of the features, for messages; none: they are numbered.
        pixels: bytes from 0 to 255 stand for raw values from 0 to 1, as in images.
    """

    origin: tuple[float, ...]
    step: tuple[float, ...]
    lowest: tuple[int, ...]
    names: tuple[str, ...] = ()
    pixels: bool = False

    def __post_init__(self) -> None:
        """Checks the values. Raises ProgramError."""
        count = len(self.origin)
        if not (len(self.step) == len(self.lowest) == count > 0 and len(self.names) in (0, count)):
            raise ProgramError(
                f"an encoding has {count} origins, {len(self.step)} steps, {len(self.lowest)} least integers and {len(self.names)} names; "
                "give one of each for every feature"
            )
        if not (np.isfinite(self.origin).all() and np.isfinite(self.step).all() and min(self.step) > 0):
            raise ProgramError("an encoding has a step that is not above zero, or an origin that is no number")
        if not all(isinstance(least, int) and -255 <= least <= 0 for least in self.lowest):
            raise ProgramError(f"an encoding has least integers from {min(self.lowest)}; they lie from -255 to 0")

    def of(self, feature: int, levels: int) -> Range:
        """Least and greatest raw value of a feature, but for half a step."""
        least = self.origin[feature] + self.step[feature] * self.lowest[feature]
        return least, least + self.step[feature] * levels

    def nearest(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Raw values [count, features, ...] as whole numbers, also beyond the range."""
        values = (raw / BYTE_MAX if self.pixels and raw.dtype == np.uint8 else raw).astype(np.float64)
        whole: NDArray[np.float64] = np.rint((values - _column(self.origin, raw)) / _column(self.step, raw))
        return whole

    def integers(self, raw: NDArray[Any], levels: int) -> NDArray[np.int64]:
        """Raw values [count, features, ...] as integers of the same shape.

        Raises:
            OutOfLevelsError: a value is no number, or lies outside its feature's range, which the message names.
        """
        found, lowest = self.nearest(raw), _column(self.lowest, raw)
        outside = ~((found >= lowest) & (found <= lowest + levels))
        if outside.any():
            place = np.argwhere(outside)[0]
            feature = int(place[1])
            name = self.names[feature] if self.names else f"feature {feature}"
            low, high = self.of(feature, levels)
            raise OutOfLevelsError(
                f"{name} is {float(raw[tuple(place)]):g} in sample {place[0]}; the model takes {low:g} to {high:g}"
            )
        whole: NDArray[np.int64] = found.astype(np.int64)
        return whole

    def raw(self, integers: NDArray[Any]) -> NDArray[np.float64]:
        """Raw values of integers [count, features, ...]."""
        values: NDArray[np.float64] = _column(self.origin, integers) + _column(self.step, integers) * integers
        return values


def _column(values: tuple[float, ...], like: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers of the features in a shape that broadcasts over [count, features, ...]."""
    return np.array(values, dtype=np.float64).reshape(1, -1, *[1] * (like.ndim - 2))
