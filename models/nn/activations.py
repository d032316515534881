"""Trainable activations: what becomes one look-up for each value, in a table of its channel.

All normalize their input by the channel's mean and standard deviation, of the batch in training and tracked ones otherwise.
"""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from ciphershift.models.nn.lookup import continued, look_up, look_up_both, side_by_side, straight_through, with_noise

MAX_RAMP = 0.295
"""Greatest ramp in turns, a little below what a Program accepts; what is below -1/2 + ramp wraps."""
MAX_BOTH = 0.245
"""The same of each ramp of a CReLU, whose window ends one ramp before the torus at both sides."""
LONGEST_RAMP = 0.495
"""The same of any other function than a ReLU."""
LEAST_TOP = 0.3
"""Standard deviations: a shorter ramp would learn from few of its inputs."""
MOMENTUM = 0.05
POINTS = 257
"""Of a function, between which its slope is taken."""
EPSILON = 1e-4


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


class Activation(nn.Module):
    """What activations have in common: statistics, and integers with the noise of a look-up.

    Attributes:
        offset: added to the normalized input, [C].
        spread: deviation of the sums before a pool, [C].
        drive: standard deviation, in turns, that the sums shall have on the torus.
        lowest: least output integer of all channels; ``levels``: the greatest.
        tied: whether it is that of several steps over time: their inputs differ from step to step, so that it normalizes by what the
            calibration data gave for all of them together.
        uniform: whether the integers of all channels begin with one unit, since a step behind mixes them (Wiring.uniform).
    """

    mean: Tensor
    std: Tensor
    spread: Tensor
    drive: Tensor
    moments = staticmethod(moments)
    with_noise = staticmethod(with_noise)

    def __init__(self, channels: int, *, levels: int, lowest: int = 0) -> None:
        super().__init__()
        self.levels, self.lowest = levels, lowest
        self.offset = nn.Parameter(torch.zeros(channels))
        self.quantized = self.frozen = self.tied = self.uniform = False
        self._seen: list[Tensor] = []
        for name, value in (
            ("mean", torch.zeros(channels)),
            ("std", torch.ones(channels)),
            ("spread", torch.ones(channels)),
        ):
            self.register_buffer(name, value)
        self.register_buffer("drive", torch.tensor(0.1))

    @property
    def span(self) -> int:
        """Steps between the least and the greatest integer."""
        return self.levels - self.lowest

    @property
    def reach(self) -> Tensor:
        """What channels are brought together by, [C]: the deviation of their sums."""
        return self.spread

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation that [B, C, ...] is normalized by; tracks them in training."""
        if not self.training or self.frozen or self.tied:
            return self.mean, self.std
        variance, mean = self.moments(x)
        std = (variance + EPSILON).sqrt()
        with torch.no_grad():
            self.mean.lerp_(mean, MOMENTUM)
            self.std.lerp_(std, MOMENTUM)
        return mean, std

    def noisy(self, levels: Tensor, std: Deviation) -> Tensor:
        """Results with the noise of a bootstrap."""
        if exact(std):
            return levels
        return self.with_noise(levels, std) if self.training else with_noise(levels, std)

    def track_spread(self, sums: Tensor) -> None:
        """Updates the running deviation of the sums before the pool."""
        if self.training and not self.frozen:
            some = sums.detach()[: -(-len(sums) // 8)]  # enough for a running average
            self._seen.append(some)
            if not self.tied:
                self.settle()

    def settle(self) -> None:
        """Takes the sums of all steps into the running deviation, at the end of a pass."""
        if self._seen:
            self.spread.lerp_(deviation(torch.cat(self._seen)), MOMENTUM)
            self._seen.clear()


class ReLU(Activation):
    """A clipped ramp for each channel with learned offset and top, re-quantized to the integers from ``lowest`` to ``levels``.

    Attributes:
        top: where the ramp ends, in standard deviations above its zero, [C].
        floor: below which training does not move it, [C].
    """

    floor: Tensor
    max_ramp = MAX_RAMP
    look_up = staticmethod(look_up)
    kernels: ModuleType | None = None
    """models.nn.fused, on a GPU."""

    def __init__(self, channels: int, *, levels: int, lowest: int = 0) -> None:
        super().__init__(channels, levels=levels, lowest=lowest)
        self.top = nn.Parameter(torch.full((channels,), 2.0))
        self.register_buffer("floor", torch.full((channels,), LEAST_TOP), persistent=False)

    def tops(self, turns: Tensor) -> Tensor:
        """Input, in standard deviations above the zero of the ramp, that becomes ``levels``; float [C].

        Args:
            turns: for one unit of the input, [C].
        """
        longest = self.max_ramp * self.levels / self.span
        return torch.minimum(torch.maximum(self.top, self.floor), longest / (self.std * turns))

    def slope(self, turns: Tensor) -> Tensor:
        """Greatest change of a result, in its integers, by one unit of the input, [C].

        Args:
            turns: for one unit of the input, [C].
        """
        return self.levels / (self.tops(turns) * self.std)

    @property
    def reach(self) -> Tensor:
        """The deviation of the sums; of a channel that hardly varies, half its mean, which the ramp must span; or the common ramp."""
        if self.uniform:
            return self.top.detach() * self.std
        center = self.center
        return torch.where(center > 3 * self.spread, center / 2, self.spread)

    @property
    def center(self) -> Tensor:
        """Where the inputs lie, from the zero of the ramp on, in units of the input, [C]."""
        return self.offset.detach() * self.std

    def forward(self, x: Tensor, turns: Tensor, noise_std: Deviation, result_std: Deviation) -> Tensor:
        """Sums -> integers from ``lowest`` to ``levels``, plus noise.

        Args:
            x: [B, C, ...].
            turns: for one unit of ``x``, [C].
            noise_std: of the look-up's input, turns; 0: compute exactly, without the torus.
            result_std: of the look-up's result, in its units.
        """
        mean, std = self.statistics(x)
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
            return self.noisy(
                compute(x, slope, shift, ramp, self.lowest, self.levels, noise_std, self.quantized), result_std
            )
        centered = (x - per_channel(mean, x)) / per_channel(std, x) + per_channel(self.offset, x)
        out = torch.clamp(centered / per_channel(top, x), self.lowest / self.levels, 1.0) * self.levels
        return self.noisy(straight_through(out, self.quantized), result_std)


class CReLU(ReLU):
    """The ramps of x and of -x, by one look-up: [B, C, ...] -> [B, 2C, ...], channel by channel; parameters as of ReLU, for both."""

    max_ramp = MAX_BOTH

    @property
    def center(self) -> Tensor:
        """As of ReLU; there is a ramp to both sides."""
        return super().center.abs()

    def forward(self, x: Tensor, turns: Tensor, noise_std: Deviation, result_std: Deviation) -> Tensor:
        """Sums -> integers from 0 to ``levels``, plus noise; arguments as of ReLU."""
        mean, std = self.statistics(x)
        top = self.tops(turns)
        if not exact(noise_std):
            scale = std.detach() * turns
            places = (scale / std, (self.offset - mean / std) * scale, top * scale)
            slope, shift, ramp = (per_channel(values, x) for values in places)
            return self.noisy(look_up_both(x, slope, shift, ramp, self.levels, noise_std, self.quantized), result_std)
        centered = (x - per_channel(mean, x)) / per_channel(std, x) + per_channel(self.offset, x)
        rising = centered / per_channel(top, x)
        out = side_by_side(rising, -rising).clamp(0, 1) * self.levels
        return self.noisy(straight_through(out, self.quantized), result_std)


class LookUp(Activation):
    """Any function f of one number: f(gain * u) / unit for a normalized input u from ``low`` to ``high``, clipped outside.

    Attributes:
        function: f, on [B, C, ...].
        gain: the module's value of one unit of u, learned, [C].
        low: where the ramp begins; ``high``: where it ends; both in units of u, [C].
        unit: the module's value of one output integer, [C].
        bottom: least output integer of each channel; ``top``: the greatest; float [C].
    """

    low: Tensor
    high: Tensor
    unit: Tensor
    bottom: Tensor
    top: Tensor

    def __init__(self, channels: int, function: Callable[[Tensor], Tensor], *, levels: int) -> None:
        super().__init__(channels, levels=levels)
        self.function = function
        self.gain = nn.Parameter(torch.ones(channels))
        for name, value in (("low", -2.0), ("high", 2.0), ("unit", 1 / levels), ("bottom", 0.0), ("top", levels)):
            self.register_buffer(name, torch.full((channels,), float(value)))

    def bounds(self, turns: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the ramp in units of u, [C] each; one that would be too long for the torus is shortened at both.

        Args:
            turns: for one unit of the input, [C].
        """
        longest = LONGEST_RAMP / (self.std * turns)
        middle, half = (self.low + self.high) / 2, torch.minimum(self.high - self.low, longest) / 2
        return middle - half, middle + half

    def slope(self, turns: Tensor) -> Tensor:
        """See ReLU; between POINTS places of the ramp."""
        low, high = self.bounds(turns)
        places = low + (high - low) * torch.linspace(0, 1, POINTS, device=low.device).view(-1, 1)
        with torch.no_grad():
            steps = self.values(places).diff(dim=0).abs().amax(0)
        return steps * (POINTS - 1) / ((high - low) * self.std)

    def values(self, u: Tensor) -> Tensor:
        """Normalized inputs [B, C, ...] -> what is rounded to integers."""
        real = self.function(u * per_channel(self.gain, u)).float()
        bottom, top = per_channel(self.bottom, u), per_channel(self.top, u)
        return torch.minimum(torch.maximum(real / per_channel(self.unit, u), bottom), top)

    def forward(self, x: Tensor, turns: Tensor, noise_std: Deviation, result_std: Deviation) -> Tensor:
        """Sums -> integers, plus noise; arguments as of ReLU."""
        mean, std = self.statistics(x)
        low, high = (per_channel(bound, x) for bound in self.bounds(turns))
        if exact(noise_std):
            u = (x - per_channel(mean, x)) / per_channel(std, x) + per_channel(self.offset, x)
            out = self.values(torch.minimum(torch.maximum(u, low), high))
        else:
            per_unit = per_channel(std.detach() * turns, x)
            u = (x - per_channel(mean, x)) / per_channel(std, x) + per_channel(self.offset, x)
            phase = with_noise((u - low) * per_unit, noise_std)
            out = continued(phase, (high - low) * per_unit, lambda turns: self.values(low + turns / per_unit))
        return self.noisy(straight_through(out, self.quantized), result_std)
