"""The trainable counterparts of a Program's layers; values between them are integers (or, before quantization, what will be integers).

A node that looks values up is told how many turns of the torus one unit of its input is worth, so that the noise, the window and the wrap
of the circuit act on the right scale (models.nn.lookup).
"""

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.he_layers.layers.max_pool import RAMP as POOL_RAMP
from ciphershift.models.nn.lookup import look_up, max_pool, straight_through, with_noise
from ciphershift.models.nn.shift import ShiftLinear

MAX_RAMP = 0.295
"""Greatest ramp in turns, a little below what a Program accepts; what is below -1/2 + ramp wraps."""
MOMENTUM = 0.05
EPSILON = 1e-4
PEAK_DECAY = 1e-3


Deviation = float | Tensor
"""Standard deviation in turns; the float 0 where there is no noise: then nodes compute exactly, without the torus."""


def exact(std: Deviation) -> bool:
    """Whether there is no noise."""
    return isinstance(std, float) and std == 0


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """[C] in a shape that broadcasts over [B, C, ...]."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each channel of [B, C, ...]."""
    variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
    return variance, mean


def deviation(x: Tensor) -> Tensor:
    """Standard deviation of each channel of [B, C, ...]."""
    return (x.var([0, *range(2, x.dim())], unbiased=False) + EPSILON).sqrt()


class ReLU(nn.Module):
    """A clipped ramp for each channel with learned offset and top, re-quantized to the integers from ``lowest`` to ``levels``.

    Its input is normalized by the channel's mean and standard deviation, of the batch in training and tracked ones otherwise. ``spread`` is
    the deviation of the sums before a pool. ``drive``: standard deviation, in turns, that the sums shall have on the torus.
    """

    mean: Tensor
    std: Tensor
    spread: Tensor
    drive: Tensor
    look_up = staticmethod(look_up)
    moments = staticmethod(moments)
    with_noise = staticmethod(with_noise)
    kernels: ModuleType | None = None
    """models.nn.fused, on a GPU."""

    def __init__(self, channels: int, *, levels: int, lowest: int = 0) -> None:
        super().__init__()
        self.levels, self.lowest = levels, lowest
        self.offset = nn.Parameter(torch.zeros(channels))
        self.top = nn.Parameter(torch.full((channels,), 2.0))
        self.quantized = self.frozen = False
        for name, value in (
            ("mean", torch.zeros(channels)),
            ("std", torch.ones(channels)),
            ("spread", torch.ones(channels)),
        ):
            self.register_buffer(name, value)
        self.register_buffer("drive", torch.tensor(0.1))

    @property
    def span(self) -> int:
        """Steps of the ramp."""
        return self.levels - self.lowest

    def tops(self, turns: Tensor) -> Tensor:
        """Input, in standard deviations above the zero of the ramp, that becomes ``levels``; float [C].

        Args:
            turns: for one unit of the input, [C].
        """
        longest = MAX_RAMP * self.levels / self.span
        return torch.minimum(self.top.clamp_min(0.3), longest / (self.std * turns))

    @property
    def reach(self) -> Tensor:
        """What channels are brought together by, [C]: the deviation of their sums; of one that hardly varies, half its mean."""
        center = self.offset.detach() * self.std
        return torch.where(center > 3 * self.spread, center / 2, self.spread)

    def forward(self, x: Tensor, turns: Tensor, noise_std: Deviation, result_std: Deviation) -> Tensor:
        """Sums -> integers from ``lowest`` to ``levels``, plus noise.

        Args:
            x: [B, C, ...].
            turns: for one unit of ``x``, [C].
            noise_std: of the look-up's input, turns; 0: compute exactly, without the torus.
            result_std: of the look-up's result, in its units.
        """
        if self.training and not self.frozen:
            variance, mean = self.moments(x)
            std = (variance + EPSILON).sqrt()
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.std.lerp_(std, MOMENTUM)
        else:
            mean, std = self.mean, self.std
        top = self.tops(turns)
        if not exact(noise_std):
            slope = std.detach() * turns / std
            shift = (self.offset - mean / std) * std.detach() * turns
            ramp = top * std.detach() * turns
            if self.kernels is not None and self.training and self.quantized and self.lowest == 0:
                stds = torch.stack([torch.as_tensor(std, dtype=torch.float32) for std in (noise_std, result_std)])
                dtype = torch.bfloat16 if torch.is_autocast_enabled("cuda") else torch.float32
                return torch.as_tensor(self.kernels.look_up(x, slope, shift, ramp, self.levels, stds, dtype))
            slope, shift, ramp = (per_channel(values, x) for values in (slope, shift, ramp))
            compute = (
                self.look_up if self.training else look_up
            )  # what is compiled is so for the batches of the training
            return self._noisy(
                compute(x, slope, shift, ramp, self.lowest, self.levels, noise_std, self.quantized), result_std
            )
        centered = (x - per_channel(mean, x)) / per_channel(std, x) + per_channel(self.offset, x)
        out = torch.clamp(centered / per_channel(top, x), self.lowest / self.levels, 1.0) * self.levels
        return self._noisy(straight_through(out, self.quantized), result_std)

    def _noisy(self, levels: Tensor, std: Deviation) -> Tensor:
        if exact(std):
            return levels
        return self.with_noise(levels, std) if self.training else with_noise(levels, std)

    def track_spread(self, sums: Tensor) -> None:
        """Updates the running deviation of the sums before the pool."""
        if self.training and not self.frozen:
            some = sums.detach()[: -(-len(sums) // 8)]  # enough for a running average
            self.spread.lerp_(deviation(some), MOMENTUM)


class MaxPool2d(nn.Module):
    """Maximum of each window, by the tree of look-ups of he_layers.layers.max_pool."""

    tree = staticmethod(max_pool)
    kernels: ModuleType | None = None
    """models.nn.fused, on a GPU."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self._halves = kernel == stride == (2, 2) and padding == (0, 0)

    def forward(self, x: Tensor, turns: Tensor, first_std: Deviation, later_std: Deviation) -> Tensor:
        """[B, C, H, W] -> [B, C, H', W'].

        Args:
            turns: for one unit of ``x``, [C].
            first_std: noise of the look-ups' input in the first round, turns; 0: compute exactly.
            later_std: in the rounds after it.
        """
        if exact(first_std):
            return functional.max_pool2d(x, self.kernel, self.stride, self.padding)
        if self.kernels is not None and self.training and self._halves:
            stds = torch.stack([torch.as_tensor(std) for std in (first_std, later_std)])
            return torch.as_tensor(self.kernels.max_pool(x, turns, stds, POOL_RAMP))
        scale = per_channel(turns, x)
        padded = x * scale
        if any(self.padding):
            padded = functional.pad(padded, (self.padding[1],) * 2 + (self.padding[0],) * 2, mode="replicate")
        tree = self.tree if self.training else max_pool
        return tree(padded, self.kernel, self.stride, first_std, later_std) / scale


class AvgPool2d(nn.Module):
    """Sum of each window; places in the padding hold zero."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H', W']."""
        return functional.avg_pool2d(x.float(), self.kernel, self.stride, self.padding) * (
            self.kernel[0] * self.kernel[1]
        )


class Add(nn.Module):
    """Sum of its inputs, each times a power of two for each channel: 2^``factors``, exponents [terms, C]."""

    factors: Tensor

    def __init__(self, terms: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("factors", torch.zeros(terms, channels))

    def forward(self, *terms: Tensor) -> Tensor:
        """[B, C, ...] each -> [B, C, ...]."""
        return torch.stack(
            [x * per_channel(2.0**factor, x) for x, factor in zip(terms, self.factors, strict=True)]
        ).sum(0)


class Concat(nn.Module):
    """Inputs one after the other along the channels."""

    def forward(self, *parts: Tensor) -> Tensor:
        """[B, C1, ...], [B, C2, ...] -> [B, C1 + C2, ...]."""
        return torch.cat(parts, dim=1)


class Gather(nn.Module):
    """Values at new places (he_layers.layers.gather), or the same places under another shape."""

    index: Tensor | None

    def __init__(self, shape: tuple[int, ...], index: Tensor | None) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("index", index, persistent=False)

    def forward(self, *parts: Tensor) -> Tensor:
        """[B, ...] each -> [B, *shape]."""
        flat = torch.cat([part.flatten(1) for part in parts], dim=1)
        if self.index is not None:
            flat = flat[:, self.index.clamp_min(0)] * (self.index >= 0)
        return flat.view(len(flat), *self.shape)


class Head(nn.Module):
    """Last layer: shift-dense with bias, no look-up; its sums are the logits up to one scale.

    ``gain`` is the real value of one unit of its input; ``peak`` the greatest sum of late.
    """

    peak: Tensor
    gain: Tensor

    def __init__(self, inputs: int, classes: int, *, exponents: int) -> None:
        super().__init__()
        self.linear = ShiftLinear(inputs, classes, per_channel=False, exponents=exponents)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.frozen = False
        self.register_buffer("peak", torch.ones(()))
        self.register_buffer("gain", torch.ones(()))

    def logit(self) -> Tensor:
        """Logit that one integer unit of the sums stands for."""
        return self.linear.scale().view(()) * self.gain

    def sums(self, x: Tensor) -> Tensor:
        """Integers [B, I] -> sums [B, classes], bias and all."""
        sums: Tensor = self.linear(x) + self.bias / self.logit()
        return sums

    def forward(self, x: Tensor, noise_std: Tensor | float) -> Tensor:
        """Integers [B, I] -> logits [B, classes]; noise in units of the sums."""
        sums = self.sums(x)
        if self.training and not self.frozen:
            greatest = sums.detach().abs().max()
            self.peak.copy_(torch.maximum(greatest, self.peak + (greatest - self.peak) * PEAK_DECAY))
        logits: Tensor = with_noise(sums, noise_std) * self.logit()
        return logits
