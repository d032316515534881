# mypy: disable-error-code="no-untyped-call, untyped-decorator, unused-ignore"
"""Look-ups and pools with their noise as Triton kernels: each value is read once on the way out and once on the way back.

The same functions as models.nn.lookup's, of which a hundred small kernels would pass over the memory; noise is drawn again for the gradient
instead of being kept. Values lie channels last: a tensor is [rows, channels]. The result of a look-up carries the bootstrap's noise, too.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from ciphershift.models.nn import kernels

TILE = 2048
"""Values that a program works on at a time, and how often it does so before it writes its sums down."""
ROUNDS = 8


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, slope: Tensor, shift: Tensor, ramp: Tensor, stds: Tensor, levels: int, dtype: torch.dtype
    ) -> Tensor:
        x = channels_last(x)
        seed = torch.randint(1 << 30, (1,), device=x.device)
        vectors = [vector.detach().float().contiguous() for vector in (slope, shift, ramp)]
        out = torch.empty_like(x, dtype=dtype)
        rows, channels, grid, tiles = _grid(x)
        kernels.look_up[grid](x, *vectors, stds, seed, out, rows, channels, levels, **tiles)
        ctx.save_for_backward(x, *vectors, stds, seed)
        ctx.levels = levels
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, slope, shift, ramp, stds, seed = ctx.saved_tensors
        rows, channels, grid, tiles = _grid(x)
        out = torch.empty_like(x)
        sums = torch.empty(grid[0], 3, channels, device=x.device)
        grad = channels_last(grad)
        kernels.look_up_back[grid](
            x, grad, slope, shift, ramp, stds, seed, out, sums, rows, channels, ctx.levels, **tiles
        )
        by_slope, by_shift, by_ramp = sums.sum(0)
        return out, by_slope, by_shift, by_ramp, None, None, None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, turns: Tensor, stds: Tensor, ramp: float) -> Tensor:
        x = channels_last(x)
        seed = torch.randint(1 << 30, (1,), device=x.device)
        turns = turns.float().contiguous()
        batch, channels, height, width = x.shape
        shape = (batch, channels, height // 2, width // 2)
        out = torch.empty(shape, device=x.device, memory_format=torch.channels_last)
        kernels.pool[(triton.cdiv(out.numel(), 1024),)](
            x, turns, stds, seed, x, out, out.numel(), channels, height, width, BACK=False, RAMP=ramp, BLOCK=1024
        )
        ctx.save_for_backward(x, turns, stds, seed)
        ctx.ramp = ramp
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, turns, stds, seed = ctx.saved_tensors
        grad = channels_last(grad.float())
        out = torch.zeros_like(x)
        _, channels, height, width = x.shape
        kernels.pool[(triton.cdiv(grad.numel(), 1024),)](
            x, turns, stds, seed, grad, out, grad.numel(), channels, height, width, BACK=True, RAMP=ctx.ramp, BLOCK=1024
        )
        return out, None, None, None


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        ctx.save_for_backward(x, mean)
        return variance, mean

    @staticmethod
    def backward(ctx: Any, by_variance: Tensor, by_mean: Tensor) -> Any:
        x, mean = ctx.saved_tensors
        count = x.numel() // len(mean)
        slope = 2 / count * by_variance
        shape = (1, -1, *[1] * (x.dim() - 2))
        return torch.addcmul((by_mean / count - slope * mean).view(shape), x, slope.view(shape))


def look_up(
    x: Tensor, slope: Tensor, shift: Tensor, ramp: Tensor, levels: int, stds: Tensor, dtype: torch.dtype
) -> Tensor:
    """Sums -> integers from 0 to ``levels`` plus a bootstrap's noise, as models.nn.lookup.look_up and with_noise.

    Args:
        x: float32 [B, C, ...].
        slope: turns for one unit of ``x``, [C]; ``shift``: turns added; ``ramp``: turns from zero to ``levels``.
        levels: greatest integer.
        stds: of the input's noise in turns, and of the result's in units, float32 [2].
        dtype: of the result.
    """
    result: Tensor = _LookUp.apply(x, slope, shift, ramp, stds, levels, dtype)
    return result


def max_pool(x: Tensor, turns: Tensor, stds: Tensor, ramp: float) -> Tensor:
    """Maxima of windows of 2 x 2, as models.nn.lookup.max_pool; ``stds``: of both rounds' noise in turns, float32 [2]."""
    result: Tensor = _Pool.apply(x, turns, stds, ramp)
    return result


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each channel of [B, C, ...]."""
    variance, mean = _Moments.apply(x)
    return variance, mean


def channels_last(x: Tensor) -> Tensor:
    """The same values in rows of channels."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def _grid(x: Tensor) -> tuple[int, int, tuple[int, int], dict[str, int]]:
    channels = x.shape[1]
    rows = x.numel() // channels
    wide = min(triton.next_power_of_2(channels), 128)
    tall = TILE // wide
    grid = (triton.cdiv(rows, tall * ROUNDS), triton.cdiv(channels, wide))
    return rows, channels, grid, {"TILE_ROWS": tall, "TILE_CHANNELS": wide, "ROUNDS": ROUNDS}
