"""Networks of blocks: shift-linear layer, optional max-pool, look-up activation; a shift-dense layer without look-up at the end.

Between blocks an activation is a number in [0, 1] (integer / levels). A block works in torus phases: it knows how many turns an
activation of one is worth (``unit``), so that the noise, the window and the wrap of the circuit act on the right scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from he_layers.simulate import CircuitNoise
from models.circuit import max_pool, triangle, with_noise
from models.shift import ShiftConv2d, ShiftLinear

MAX_RAMP = 0.295
"""Greatest ramp in turns, a little below what a Program accepts; what is below -1/2 + ramp wraps."""
MAX_EQUALISER = 3
"""Greatest power of two by which a channel is scaled up: weights stay within 2^6."""
MOMENTUM = 0.05
EPSILON = 1e-5
LOGIT_PEAK = 0.4
"""Turns given to the greatest logit; half a turn is the end of the torus."""
PEAK_DECAY = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvSpec:
    """Convolution to ``maps`` channels, max-pool of ``pool`` x ``pool`` (1: none), activation.

    ``drive`` is the standard deviation, in turns, that the block's sums shall have on the torus.
    """

    maps: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: int = 1
    drive: float = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseSpec:
    """Dense layer to ``units`` values and activation."""

    units: int
    drive: float = 0.1


BlockSpec = ConvSpec | DenseSpec


class Block(nn.Module):
    """Shift-linear layer, optional max-pool, then a per-channel clipped ramp with learned offset and top, re-quantised to ``levels``."""

    mean: Tensor
    std: Tensor
    spread: Tensor

    def __init__(
        self, linear: ShiftConv2d | ShiftLinear, *, channels: int, levels: int, drive: float, pool: int, first: bool
    ) -> None:
        super().__init__()
        self.linear, self.levels, self.drive, self.pool, self.first = linear, levels, drive, pool, first
        self.offset = nn.Parameter(torch.zeros(channels))
        self.top = nn.Parameter(torch.full((channels,), 2.0))
        self.noise: CircuitNoise | None = None
        self.quantised = False
        self.frozen = False
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("spread", torch.ones(channels))

    def equaliser(self) -> Tensor:
        """Power of two for each channel that brings the channels' spreads together, float [C]."""
        ratio = self.spread.max() / self.spread
        return 2.0 ** torch.log2(ratio).round().clamp(0, MAX_EQUALISER)

    def unit(self) -> float:
        """Turns of the torus for an input activation of one."""
        equalised = self.spread * self.equaliser()
        return self.drive / float(equalised.pow(2).mean().sqrt())

    def tops(self) -> Tensor:
        """Pre-activation, in standard deviations, at which the ramp ends; float [C]."""
        turns = self.std * self.equaliser() * self.unit()
        return torch.minimum(self.top.clamp_min(0.3), MAX_RAMP / turns)

    def forward(self, x: Tensor) -> Tensor:
        """Activations in [0, 1] -> activations in [0, 1]."""
        unit, noise = self.unit(), self.noise
        if noise:
            x = with_noise(x, (noise.fresh if self.first else noise.lookup) / unit)
        sums = self.linear(x)
        shape = [1, -1] + [1] * (sums.dim() - 2)
        turns_per_sum = (self.equaliser() * unit).view(shape)
        if self.training and not self.frozen:
            self._track("spread", sums.detach())
        if self.pool > 1:
            if noise:
                stds = noise.lookup_input(self.first, not self.first), noise.lookup_input(self.first, True)
                sums = max_pool(sums * turns_per_sum, self.pool, self.pool, *stds) / turns_per_sum
            else:
                sums = nn.functional.max_pool2d(sums, self.pool)
        if self.training and not self.frozen:
            axes = [0, *range(2, sums.dim())]
            mean, deviation = sums.mean(axes), (sums.var(axes, unbiased=False) + EPSILON).sqrt()
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), MOMENTUM)
                self.std.lerp_(deviation.detach(), MOMENTUM)
        else:
            mean, deviation = self.mean, self.std
        centred = (sums - mean.view(shape)) / deviation.view(shape) + self.offset.view(shape)
        top = self.tops().view(shape)
        if noise:
            turns = deviation.detach().view(shape) * turns_per_sum
            std = noise.lookup_input(self.first, not self.first or self.pool > 1)
            out = triangle(with_noise(centred * turns, std), top * turns) / (top * turns)
        else:
            out = torch.minimum(centred.clamp_min(0), top) / top
        if self.quantised:
            out = out + (torch.floor(out * self.levels + 0.5) / self.levels - out).detach()
        activations: Tensor = out
        return activations

    def _track(self, name: str, sums: Tensor) -> None:
        axes = [0, *range(2, sums.dim())]
        getattr(self, name).lerp_((sums.var(axes, unbiased=False) + EPSILON).sqrt(), MOMENTUM)


class Head(nn.Module):
    """Last layer: shift-dense with bias, no look-up; its sums are the logits up to one scale."""

    peak: Tensor

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.linear = ShiftLinear(inputs, classes, per_channel=False)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.noise: CircuitNoise | None = None
        self.frozen = False
        self.register_buffer("peak", torch.ones(()))

    def unit(self) -> float:
        """Turns of the torus for an input activation of one: the greatest sum of late comes to LOGIT_PEAK."""
        return LOGIT_PEAK / float(self.peak)

    def forward(self, x: Tensor) -> Tensor:
        """Activations [B, I] in [0, 1] -> logits [B, classes]."""
        unit, noise = self.unit(), self.noise
        if noise:
            x = with_noise(x, noise.lookup / unit)
        scale = self.linear.scale().view(())
        sums = self.linear(x) + self.bias / scale
        if noise:
            sums = with_noise(sums, noise.packing / unit)
        if self.training and not self.frozen:
            greatest = sums.detach().abs().max()
            self.peak.copy_(torch.maximum(greatest, self.peak + (greatest - self.peak) * PEAK_DECAY))
        logits: Tensor = sums * scale
        return logits


class Network(nn.Module):
    """Blocks and head for images of one shape."""

    def __init__(
        self, input_shape: tuple[int, int, int], blocks: tuple[BlockSpec, ...], *, classes: int = 10, levels: int = 31
    ) -> None:
        super().__init__()
        self.input_shape, self.levels = input_shape, levels
        self.blocks = nn.ModuleList()
        channels, height, width = input_shape
        flat = False
        for index, spec in enumerate(blocks):
            linear: ShiftConv2d | ShiftLinear
            if isinstance(spec, ConvSpec):
                linear = ShiftConv2d(channels, spec.maps, spec.kernel, stride=spec.stride, padding=spec.padding)
                channels = spec.maps
                height, width = (
                    ((side + 2 * spec.padding - spec.kernel) // spec.stride + 1) // spec.pool
                    for side in (height, width)
                )
                pool = spec.pool
            else:
                linear = ShiftLinear(channels if flat else channels * height * width, spec.units)
                channels, pool, flat = spec.units, 1, True
            self.blocks.append(
                Block(linear, channels=channels, levels=levels, drive=spec.drive, pool=pool, first=index == 0)
            )
        self.head = Head(channels if flat else channels * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        for block in self.stages():
            if isinstance(block.linear, ShiftLinear):
                x = x.flatten(1)
            x = block(x)
        logits: Tensor = self.head(x.flatten(1))
        return logits

    def stages(self) -> Iterator[Block]:
        """The blocks in order."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def quantise(self, on: bool) -> None:
        """Use integer weights and integer activations from now on (or real ones again)."""
        for block in self.stages():
            block.quantised = block.linear.quantised = on
        self.head.linear.quantised = on

    @property
    def noise(self) -> CircuitNoise | None:
        """The noise that is injected."""
        return self.head.noise

    def set_noise(self, noise: CircuitNoise | None) -> None:
        """Inject the circuit's noise, wrap and pool window from now on (or compute exactly)."""
        for block in self.stages():
            block.noise = noise
        self.head.noise = noise

    def freeze(self, on: bool) -> None:
        """Stop tracking statistics: the network becomes the one that will be exported."""
        for block in self.stages():
            block.frozen = on
        self.head.frozen = on
