"""The look-ups as the encrypted circuit performs them, in torch, on torus phases with the noise of the parameter set.

A phase is a torus value in turns. Every look-up adds the noise of the key switch and the modulus switch to its input; its table is a ramp
continued anti-periodically, hence a triangle wave beyond the window (the same as he_layers.simulate, here differentiable and without the
rounding to the 2N grid, whose step is a tenth of the noise).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ciphershift.he_layers.layers.max_pool import RAMP as POOL_RAMP


def triangle(phase: Tensor, ramp: Tensor | float) -> Tensor:
    """min(ramp, max(0, phase)) on [-1/2 + ramp, 1/2), continued by f(phase + 1/2) = ramp - f(phase); the result is in [0, ramp]."""
    wrapped = phase - torch.floor(phase + 0.5)
    rising = torch.clamp(wrapped.clamp_min(0), max=ramp)
    mirrored = ramp - torch.clamp((wrapped + 0.5).clamp_min(0), max=ramp)
    return torch.where(wrapped >= 0, rising, mirrored)


def continued(phase: Tensor, ramp: Tensor, values: Callable[[Tensor], Tensor]) -> Tensor:
    """A table that changes on a ramp from phase 0 on: values(ramp) behind it, values(0) before it, and mirrored below -1/2 + ramp.

    The other half of the torus holds f(phase + 1/2) = values(0) + values(ramp) - f(phase) (he_layers.layers.table).

    Args:
        phase: turns.
        ramp: turns, broadcasts to ``phase``.
        values: of turns from 0 to ``ramp``.
    """
    wrapped = phase - torch.floor(phase + 0.5)
    upper = wrapped < 0
    found = values(torch.minimum(torch.where(upper, wrapped + 0.5, wrapped), ramp))
    return torch.where(upper, values(torch.zeros_like(ramp)) + values(ramp) - found, found)


def with_noise(phase: Tensor, std: float | Tensor) -> Tensor:
    """Add Gaussian noise of the given standard deviation.

    On a processor four images of a batch share theirs: as it is, negated, mirrored, and both. Drawing it is what training would wait for:
    it is drawn as it lies in memory, and a quarter of it. On a GPU it costs nothing beside the memory that is read.
    """
    if phase.is_cuda:
        return phase + torch.randn_like(phase) * std
    quarter = torch.empty_like(phase[: -(-len(phase) // 4)])
    quarter.as_strided((quarter.numel(),), (1,)).normal_()
    mirrored = quarter.flip(-1)
    noise = torch.cat([quarter, -quarter, mirrored, -mirrored])[: len(phase)]
    return phase + noise * std


def look_up(
    x: Tensor, slope: Tensor, shift: Tensor, ramp: Tensor, lowest: int, levels: int, std: float | Tensor, rounded: bool
) -> Tensor:
    """Sums -> integers from ``lowest`` to ``levels`` by one noisy look-up of the ramp; zero is one of its steps.

    Args:
        x: any shape; the other tensors broadcast to it.
        slope: turns for one unit of ``x``; ``shift``: turns added.
        ramp: turns from zero to ``levels``.
        std: of the input's noise, turns.
        rounded: to integers; the gradient passes the rounding unchanged.
    """
    below = -lowest / levels * ramp
    phase = with_noise(x * slope + (shift + below), std)
    return straight_through((triangle(phase, ramp + below) - below) / ramp * levels, rounded)


def look_up_both(
    x: Tensor, slope: Tensor, shift: Tensor, ramp: Tensor, levels: int, std: float | Tensor, rounded: bool
) -> Tensor:
    """The ramps of x and of -x by one noisy look-up: sums [B, C, ...] -> integers from 0 to ``levels``, [B, 2C, ...]; see look_up."""
    phase = with_noise(x * slope + shift, std)
    rising, falling = triangle(phase, ramp), ramp - triangle(phase + ramp, ramp)
    return straight_through(side_by_side(rising / ramp, falling / ramp) * levels, rounded)


def side_by_side(a: Tensor, b: Tensor) -> Tensor:
    """Each channel of ``a`` with that of ``b`` behind it: [B, C, ...] -> [B, 2C, ...]."""
    return torch.stack([a, b], dim=2).flatten(1, 2)


def straight_through(x: Tensor, rounded: bool) -> Tensor:
    """Nearest integers, with the gradient of ``x``."""
    return x + (torch.floor(x + 0.5) - x).detach() if rounded else x


def maximum(a: Tensor, b: Tensor, std: float | Tensor) -> Tensor:
    """max(a, b) = b + ReLU(a - b), one noisy look-up for each value."""
    return b + triangle(with_noise(a - b, std), POOL_RAMP)


def max_pool(
    phase: Tensor, kernel: tuple[int, int], stride: tuple[int, int], std: float | Tensor, later_std: float | Tensor
) -> Tensor:
    """Trees of maxima over windows, along rows and down columns: [B, C, H, W] -> [B, C, H', W']; pairs as in he_layers.layers.max_pool.

    Args:
        std: of the look-ups' input noise in the first round of the tree; ``later_std`` in the following ones.
    """
    for axis in (3, 2):
        values = list(phase.unfold(axis, kernel[axis - 2], stride[axis - 2]).unbind(-1))
        while len(values) > 1:
            paired = [maximum(a, b, std) for a, b in zip(values[0::2], values[1::2], strict=False)]
            values = paired + values[len(values) // 2 * 2 :]
            std = later_std
        phase = values[0]
    return phase
