"""Networks of the exact profile: integers from pixel to logit, with the torus's own modulus where they are read.

Weights are -1, 0 or 1, and each output has a fixed number of them that is not 0, so that its sums stay narrow. A block's sums are read
modulo ``modulus`` (he_layers.layers.relu), in training as in the circuit: a sum that leaves the window is punished by its wrong value.
Gradients pass roundings unchanged (Bengio et al. 2013, arXiv 1308.3432).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.nn.activations import EPSILON, MAX_RAMP, MOMENTUM, moments
from ciphershift.models.nn.lookup import max_pool, straight_through, triangle


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseConvSpec:
    """Convolution to ``maps`` channels with ``nonzeros`` weights for each output, max-pool of ``pool`` x ``pool`` (1: none), activation."""

    maps: int
    kernel: int
    nonzeros: int
    stride: int = 1
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseDenseSpec:
    """Dense layer to ``units`` values with ``nonzeros`` weights for each, and activation."""

    units: int
    nonzeros: int


SparseSpec = SparseConvSpec | SparseDenseSpec


def whole(x: Tensor) -> Tensor:
    """Nearest integer, halves upwards; the gradient is that of the identity."""
    return straight_through(x, True)


class SparseTernary(nn.Module):
    """Real weights, and the integers -1, 0, 1 made from them: the signs of each output's ``nonzeros`` greatest."""

    def __init__(self, shape: tuple[int, ...], nonzeros: int) -> None:
        super().__init__()
        self.nonzeros = nonzeros
        self.quantized = False
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(shape)))

    def forward(self) -> Tensor:
        """The weights, integers once ``quantized``; of the weight's shape."""
        flat = self.weight.flatten(1)
        size = flat.detach().abs()
        scaled = flat / size.mean(1, keepdim=True)
        if self.quantized:
            least = size.topk(min(self.nonzeros, size.shape[1]), dim=1).values[:, -1:]
            signs = torch.sign(flat.detach()) * (size >= least)
            scaled = scaled + (signs - scaled).detach()
        return scaled.view_as(self.weight)


class ExactBlock(nn.Module):
    """Sparse ternary layer, optional max-pool, and a per-channel clipped ramp with learned offset and top, read modulo ``modulus``."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: SparseSpec, inputs: int, *, levels: int, modulus: int) -> None:
        super().__init__()
        self.spec, self.levels, self.modulus = spec, levels, modulus
        channels = spec.maps if isinstance(spec, SparseConvSpec) else spec.units
        window = (spec.kernel, spec.kernel) if isinstance(spec, SparseConvSpec) else ()
        self.weights = SparseTernary((channels, inputs, *window), spec.nonzeros)
        self.offset = nn.Parameter(torch.zeros(channels))
        self.top = nn.Parameter(torch.full((channels,), 2.0))
        self.frozen = False
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def ramp(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Bias (an integer) and length of each channel's ramp, in units of the sums, [C]."""
        bias = whole(self.offset * std - mean)
        length = (self.top.clamp_min(0.3) * std).clamp_max(MAX_RAMP * self.modulus)
        return bias, length

    def forward(self, x: Tensor) -> Tensor:
        """Integers 0 .. levels of the block before -> integers 0 .. levels."""
        exact = self.weights.quantized
        spec = self.spec
        if isinstance(spec, SparseConvSpec):
            sums = functional.conv2d(x, self.weights(), None, spec.stride, spec.padding)
            if spec.pool > 1 and exact:
                sums = (
                    max_pool(sums / self.modulus, (spec.pool, spec.pool), (spec.pool, spec.pool), 0.0, 0.0)
                    * self.modulus
                )
            elif spec.pool > 1:
                sums = functional.max_pool2d(sums, spec.pool)
        else:
            sums = functional.linear(x.flatten(1), self.weights())
        if self.training and not self.frozen:
            variance, mean = moments(sums)
            std = (variance + EPSILON).sqrt()
            with torch.no_grad():
                self.mean.lerp_(mean, MOMENTUM)
                self.std.lerp_(std, MOMENTUM)
        else:
            mean, std = self.mean, self.std
        shape = [1, -1] + [1] * (sums.dim() - 2)
        bias, length = (value.view(shape) for value in self.ramp(mean, std))
        if not exact:
            return torch.minimum((sums + bias).clamp_min(0), length) / length * self.levels
        return whole(
            triangle((sums + bias) / self.modulus, length / self.modulus) * self.modulus / length * self.levels
        )


class ExactNetwork(nn.Module):
    """Blocks and a sparse ternary head for images of one shape; pixels are rounded to 0 .. ``pixel_levels``."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        specs: tuple[SparseSpec, ...],
        *,
        head_nonzeros: int,
        modulus: int,
        logit_modulus: int,
        levels: int,
        pixel_levels: int,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.input_shape, self.pixel_levels, self.logit_modulus = input_shape, pixel_levels, logit_modulus
        self.blocks = nn.ModuleList()
        channels, *sides = input_shape
        for spec in specs:
            if isinstance(spec, SparseConvSpec):
                block = ExactBlock(spec, channels, levels=levels, modulus=modulus)
                sides = [((side + 2 * spec.padding - spec.kernel) // spec.stride + 1) // spec.pool for side in sides]
                channels = spec.maps
            else:
                block = ExactBlock(spec, int(np.prod([channels, *sides])), levels=levels, modulus=modulus)
                channels, sides = spec.units, []
            self.blocks.append(block)
        self.head = SparseTernary((classes, int(np.prod([channels, *sides]))), head_nonzeros)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.logit_scale = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        x = torch.floor(x * self.pixel_levels + 0.5)
        for block in self.stages():
            x = block(x)
        sums = functional.linear(x.flatten(1), self.head()) + whole(self.bias)
        if self.head.quantized:
            sums = sums - (torch.floor(sums / self.logit_modulus + 0.5) * self.logit_modulus).detach()
        logits: Tensor = sums * self.logit_scale
        return logits

    def stages(self) -> Iterator[ExactBlock]:
        """The blocks in order."""
        for block in self.blocks:
            assert isinstance(block, ExactBlock)
            yield block

    def quantize(self, on: bool) -> None:
        """Compute with integers from now on (or with real weights and activations again)."""
        self.head.quantized = on
        for block in self.stages():
            block.weights.quantized = on

    @property
    def frozen(self) -> bool:
        """Whether statistics stand still."""
        return all(block.frozen for block in self.stages())

    def freeze(self, on: bool) -> None:
        """Stop tracking statistics: the network becomes the one that will be exported."""
        for block in self.stages():
            block.frozen = on
