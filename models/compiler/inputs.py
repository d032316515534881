"""What a network takes: raw values, the integers that stand for them, and what its module makes of them first."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ciphershift.errors import ConfigurationError
from ciphershift.he_layers.layers import Shape
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.nn.activations import per_channel
from ciphershift.protocol.encoding import Encoding
from ciphershift.protocol.sequences import unpadded

MARGIN = 0.1
"""Of a feature's range, on each side: what users have may lie beyond the data that a network was made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Of one network.

    Attributes:
        encoding: of raw values; None for pixels from 0 to 1.
        mean: that is taken off each feature before the module sees it; () for none.
        std: that each feature is divided by then.
        levels: steps of a pixel or a feature, at most 255. A recurrent network does with few: it adds inputs to states, so that a step of
            the one is worth as many turns as a level of the other.
        sequences: samples are padded sequences (protocol.sequences); clients may then send shorter ones.
    """

    encoding: Encoding | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    levels: int = PIXEL_LEVELS
    sequences: bool = False

    def __post_init__(self) -> None:
        """Either of mean and deviation is enough. Raises ConfigurationError."""
        mean, std = (tuple(float(each) for each in values) for values in (self.mean, self.std))
        object.__setattr__(self, "mean", mean or (0.0,) * len(std))
        object.__setattr__(self, "std", std or (1.0,) * len(mean))
        if len(self.mean) != len(self.std):
            raise ConfigurationError(
                f"there are {len(mean)} means and {len(std)} deviations: give one of each for a feature"
            )
        if wrong := [i for i, each in enumerate(self.std) if not each > 0]:
            raise ConfigurationError(
                f"the deviation of feature {wrong[0]} is {self.std[wrong[0]]}: it is divided by; leave a feature that is constant out"
            )
        if not 1 <= self.levels <= PIXEL_LEVELS:
            raise ConfigurationError(f"{self.levels} levels; an input has 1 to {PIXEL_LEVELS}")

    def integers(self, x: Tensor) -> Tensor:
        """What training takes, bytes / 255 [B, features, ...], as integers above each feature's least."""
        if self.encoding is not None or self.levels == PIXEL_LEVELS:
            return x * PIXEL_LEVELS
        return torch.round(x * self.levels)

    def of_steps(self, steps: Tensor) -> Tensor:
        """What training takes, from 0 to 1, of steps above each feature's least value; the inverse of ``integers``."""
        return steps / (self.levels if self.encoding is None else PIXEL_LEVELS)

    def to_module(self, raw: Tensor) -> Tensor:
        """Raw values [B, features, ...] as the module takes them."""
        if not self.mean:
            return raw
        mean, std = (per_channel(torch.tensor(v, device=raw.device), raw) for v in (self.mean, self.std))
        return (raw - mean) / std

    def lowest(self, features: int) -> Tensor:
        """Least integer of each feature, float [features]."""
        return torch.zeros(features) if self.encoding is None else torch.tensor(self.encoding.lowest).float()

    def bounds(self, shape: Shape) -> Tensor:
        """Least and greatest integer of each value, float [2, values]."""
        low = self.lowest(shape[0]).repeat_interleave(prod(shape[1:]))
        return torch.stack([low, low + self.levels])

    def scale(self, features: int) -> tuple[Tensor, Tensor]:
        """What an integer is worth to the module, and the module's value of the integer 0; float [features] each."""
        if self.encoding is None:
            origin, step = torch.zeros(features), torch.full((features,), 1 / self.levels)
        else:
            origin, step = (torch.tensor(v, dtype=torch.float64) for v in (self.encoding.origin, self.encoding.step))
        if self.mean:
            mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.mean, self.std))
            origin, step = (origin - mean) / std, step / std
        return step.float(), origin.float()

    def raw_of(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Bytes [count, features, ...] as raw values: the middle of what they stand for."""
        if self.encoding is None:
            return (images / np.float32(PIXEL_LEVELS)).astype(np.float32)
        lowest = self.lowest(images.shape[1]).numpy().reshape(1, -1, *[1] * (images.ndim - 2))
        return self.encoding.raw(images + lowest).astype(np.float32)

    def as_sent(self, images: NDArray[np.uint8]) -> Sequence[NDArray[Any]]:
        """Bytes [count, features, ...] as a client is given them: pixels, raw values, or sequences of their own length."""
        raw = images if self.encoding is None else self.raw_of(images)
        return unpadded(raw) if self.sequences else list(raw)

    def refused(self, raw: NDArray[Any]) -> int:
        """How many of these raw samples [count, features, ...] a client would refuse, for a value outside its feature's range."""
        if self.encoding is None:
            return 0
        steps = self._steps(self.encoding, raw)
        return int(((steps < 0) | (steps > self.levels)).reshape(len(raw), -1).any(axis=1).sum())

    def bytes_of(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        """Raw values [count, features, ...] as steps above each feature's least value, uint8, which training and simulation take.

        Values outside a feature's range are moved to its end.
        """
        if self.encoding is None:
            steps = raw if raw.dtype == np.uint8 else np.rint(raw.astype(np.float64) * PIXEL_LEVELS)
        else:
            steps = self._steps(self.encoding, raw)
        result: NDArray[np.uint8] = np.clip(steps, 0, self.levels if self.encoding else PIXEL_LEVELS).astype(np.uint8)
        return result

    def _steps(self, encoding: Encoding, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Raw values [count, features, ...] above each feature's least, in steps, also beyond the range."""
        lowest: NDArray[np.float32] = self.lowest(raw.shape[1]).numpy()
        return encoding.nearest(raw) - lowest.reshape(1, -1, *[1] * (raw.ndim - 2))


def fit_encoding(
    raw: NDArray[Any] | Tensor,
    *,
    origin: Sequence[float] = (),
    names: Sequence[str] = (),
    pixels: bool = False,
    levels: int = PIXEL_LEVELS,
) -> Encoding:
    """An encoding by the range of data, and a margin of a tenth on each side; whole numbers stay exact where the steps allow it.

    Args:
        raw: [count, features, ...], as clients will send them.
        origin: raw value that the integer 0 stands for, for each feature: what the module's zero is, as a mean that is taken off. By
            default 0 where the range holds it, otherwise its least value. Zeros of a padding are right where it is the module's zero.
        names: of the features.
        pixels: values are from 0 to 1, and bytes from 0 to 255 stand for them.
        levels: steps from a feature's least value to its greatest.
    """
    array = np.asarray(raw, dtype=np.float64) / (PIXEL_LEVELS if pixels and np.asarray(raw).dtype == np.uint8 else 1)
    rows = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
    made = [_feature(row, origin[i] if len(origin) else 0.0, levels, pixels=pixels) for i, row in enumerate(rows)]
    origins, steps, lowest = zip(*made, strict=True)
    return Encoding(origin=origins, step=steps, lowest=lowest, names=tuple(names), pixels=pixels)


def _feature(values: NDArray[np.float64], origin: float, levels: int, *, pixels: bool) -> tuple[float, float, int]:
    """Origin, step and least integer of one feature."""
    low, high = (0.0, 1.0) if pixels else (float(values.min()), float(values.max()))
    width = high - low
    if width == 0:
        low, high = low - 1, high + 1
    elif not pixels and not np.array_equal(values, np.rint(values)):
        low, high = low - MARGIN * width, high + MARGIN * width
    if not low <= origin <= high:
        origin = low
    step = (high - low) / max(levels - 1, 1)  # one less: both ends are rounded outwards
    whole = np.array_equal(values, np.rint(values)) and origin == np.rint(origin)
    if whole and high - low <= levels:
        step = 1 / int(levels / (high - low))
    return origin, step, max(-levels, int(np.floor((low - origin) / step + 1e-9)))


class Decoded(nn.Module):
    """A module on what training and simulation take: bytes / 255 become raw values, and these what the module takes."""

    unit: Tensor
    zero: Tensor
    lowest: Tensor

    def __init__(self, module: nn.Module, inputs: Inputs, features: int) -> None:
        super().__init__()
        self.module = module
        unit, zero = inputs.scale(features)
        for name, value in (("unit", unit), ("zero", zero), ("lowest", inputs.lowest(features))):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features, ...] in [0, 1] -> what the module returns."""
        integers = x * PIXEL_LEVELS + per_channel(self.lowest, x)
        result: Tensor = self.module(integers * per_channel(self.unit, x) + per_channel(self.zero, x))
        return result


def decoded(module: nn.Module, inputs: Inputs, features: int) -> nn.Module:
    """The module on bytes / 255; the module itself where these are what it takes."""
    return module if inputs.encoding is None else Decoded(module, inputs, features).eval()


class Logits(nn.Module):
    """A module that ends in a softmax or sigmoid, back to logits, of which softmax or sigmoid is what it gave."""

    def __init__(self, module: nn.Module, function: str) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, classes]."""
        return logits_of(self.module(x), self.function)


def logits_of(given: Tensor, function: str | None) -> Tensor:
    """Logits, of which a softmax, a logarithm of it or a sigmoid is what was given; without a function it is them."""
    match function:
        case "sigmoid":
            return torch.logit(given, 1e-7)
        case "softmax":
            return given.clamp_min(1e-7).log()
    return given
