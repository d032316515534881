"""The trainable counterparts of a Program's layers; values between them are integers (or, before quantization, what will be integers).

A node that looks values up is told how many turns of the torus one unit of its input is worth, so that the noise, the window and the wrap
of the circuit act on the right scale (models.nn.lookup). Activations are in models.nn.activations.
"""

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.he_layers.layers.max_pool import RAMP as POOL_RAMP
from ciphershift.models.nn.activations import Deviation, exact, per_channel
from ciphershift.models.nn.lookup import max_pool, with_noise
from ciphershift.models.nn.shift import ShiftLinear, WholeLinear

PEAK_DECAY = 1e-3


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
    """Last layer: dense with bias, no look-up; its sums are the outputs up to one scale for each.

    ``gain`` is the real value of one unit of its input; ``factor`` [values] that of an output beside the others; ``peak`` the greatest sum
    of late.
    """

    peak: Tensor
    gain: Tensor
    factor: Tensor
    bounds: Tensor | None

    def __init__(
        self,
        inputs: int,
        sizes: tuple[int, ...],
        *,
        exponents: int,
        mask: Tensor | None = None,
        bounds: Tensor | None = None,
    ) -> None:
        """Make it.

        Args:
            inputs: values that it reads.
            sizes: values of each output.
            exponents: powers of two that a weight may take.
            mask: bool [values of all outputs, inputs], false where there is no weight.
            bounds: least and greatest integer of each input, [2, inputs], in a network without look-ups; its weights are integers.
        """
        super().__init__()
        self.sizes = sizes
        self.linear = (
            ShiftLinear(inputs, sum(sizes), per_channel=False, exponents=exponents, mask=mask)
            if bounds is None
            else WholeLinear(inputs, sum(sizes), mask=mask)
        )
        self.register_buffer("bounds", bounds, persistent=False)
        self.bias = nn.Parameter(torch.zeros(sum(sizes)))
        self.frozen = False
        self.register_buffer("peak", torch.ones(()))
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("factor", torch.ones(sum(sizes)))

    def take(self, weight: Tensor) -> None:
        """Real weights [values, inputs], each output in a unit of its own, so that the weights of all are of one size."""
        sizes = [
            float(self.linear.size_of(weight, rows))
            for rows in torch.split(torch.arange(len(weight)), list(self.sizes))
        ]
        most = max(sizes)
        factors = [size / most if size > 0 else 1.0 for size in sizes]
        self.factor.copy_(torch.tensor(factors).repeat_interleave(torch.tensor(self.sizes)))
        self.linear.weight.copy_(weight / self.factor[:, None])

    def unit(self) -> Tensor:
        """What one integer unit of the sums stands for, in an output whose factor is 1."""
        return self.linear.scale().view(()) * self.gain

    def logit(self) -> Tensor:
        """What one integer unit of each sum stands for, [values]."""
        return self.unit() * self.factor

    def sums(self, x: Tensor) -> Tensor:
        """Integers [B, I] -> sums [B, values], bias and all."""
        sums: Tensor = self.linear(x) + self.bias / self.logit()
        return sums

    def reach(self) -> Tensor:
        """The greatest sum of late, or in a network without look-ups, where nothing clips, the greatest of any input; []."""
        if self.bounds is None:
            return self.peak
        weight, bias = self.linear.unit_weight().detach(), (self.bias / self.logit()).detach()
        low, high = (weight * bound for bound in self.bounds)
        most, least = torch.maximum(low, high).sum(1) + bias, torch.minimum(low, high).sum(1) + bias
        return torch.maximum(most.max(), -least.min())

    def forward(self, x: Tensor, noise_std: Tensor | float) -> Tensor:
        """Integers [B, I] -> outputs [B, values]; noise in units of the sums."""
        sums = self.sums(x)
        if self.training and not self.frozen:
            greatest = sums.detach().abs().max()
            self.peak.copy_(torch.maximum(greatest, self.peak + (greatest - self.peak) * PEAK_DECAY))
        logits: Tensor = with_noise(sums, noise_std) * self.logit()
        return logits
