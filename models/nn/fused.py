"""Look-ups and pools with their noise as Triton kernels: each value is read once on the way out and once on the way back.

The same functions as models.nn.lookup's, of which a hundred small kernels would pass over the memory; noise is drawn again for the gradient
instead of being kept. Values lie channels last: a tensor is [rows, channels]. The result of a look-up carries the bootstrap's noise, too.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
"""Values that a program works on at a time, and how often it does so before it writes its sums down."""
ROUNDS = 8


@triton.jit
def _noisy_phase(x, slope, shift, noise, std):  # type: ignore[no-untyped-def]
    phase = x * slope + shift + noise * std
    return phase - tl.floor(phase + 0.5)


@triton.jit
def _tile(rows, channels, TILE_ROWS: tl.constexpr, TILE_CHANNELS: tl.constexpr, ROUNDS: tl.constexpr, k):  # type: ignore[no-untyped-def]  # noqa: N803
    row = (tl.program_id(0) * ROUNDS + k) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    inside = (row[:, None] < rows) & (channel[None, :] < channels)
    return row[:, None] * channels + channel[None, :], inside


@triton.jit
def _look_up(x_at, slope_at, shift_at, ramp_at, stds_at, seed_at, out_at, rows, channels, levels,
             TILE_ROWS: tl.constexpr, TILE_CHANNELS: tl.constexpr, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip  # noqa: N803
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    real = channel < channels
    slope = tl.load(slope_at + channel, real, 0.0)[None, :]
    shift = tl.load(shift_at + channel, real, 0.0)[None, :]
    ramp = tl.load(ramp_at + channel, real, 1.0)[None, :]
    seed, std, std_out = tl.load(seed_at), tl.load(stds_at), tl.load(stds_at + 1)
    for k in range(ROUNDS):
        place, inside = _tile(rows, channels, TILE_ROWS, TILE_CHANNELS, ROUNDS, k)
        x = tl.load(x_at + place, inside, 0.0)
        noise, noise_out, _, _ = tl.randn4x(seed, place)
        phase = _noisy_phase(x, slope, shift, noise, std)
        rising = tl.minimum(tl.maximum(phase, 0.0), ramp)
        mirrored = ramp - tl.minimum(tl.maximum(phase + 0.5, 0.0), ramp)
        value = tl.where(phase >= 0, rising, mirrored) / ramp * levels
        tl.store(out_at + place, (tl.floor(value + 0.5) + noise_out * std_out).to(out_at.dtype.element_ty), inside)


@triton.jit
def _look_up_back(x_at, grad_at, slope_at, shift_at, ramp_at, stds_at, seed_at, out_at, sums_at, rows, channels, levels,
                  TILE_ROWS: tl.constexpr, TILE_CHANNELS: tl.constexpr, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip  # noqa: N803
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    real = channel < channels
    slope = tl.load(slope_at + channel, real, 0.0)[None, :]
    shift = tl.load(shift_at + channel, real, 0.0)[None, :]
    ramp = tl.load(ramp_at + channel, real, 1.0)[None, :]
    seed, std = tl.load(seed_at), tl.load(stds_at)
    by_slope = tl.zeros([TILE_CHANNELS], tl.float32)
    by_shift = tl.zeros([TILE_CHANNELS], tl.float32)
    by_ramp = tl.zeros([TILE_CHANNELS], tl.float32)
    for k in range(ROUNDS):
        place, inside = _tile(rows, channels, TILE_ROWS, TILE_CHANNELS, ROUNDS, k)
        x = tl.load(x_at + place, inside, 0.0)
        grad = tl.load(grad_at + place, inside, 0.0).to(tl.float32) * levels / ramp
        noise, _, _, _ = tl.randn4x(seed, place)
        phase = _noisy_phase(x, slope, shift, noise, std)
        rises = phase >= 0
        along = tl.where(rises, phase, phase + 0.5)
        clipped = tl.minimum(tl.maximum(along, 0.0), ramp)
        on_ramp = (along > 0) & (along < ramp)
        value = tl.where(rises, clipped, ramp - clipped)
        top = tl.where(along >= ramp, 1.0, 0.0)
        by_phase = grad * tl.where(on_ramp, tl.where(rises, 1.0, -1.0), 0.0)
        tl.store(out_at + place, by_phase * slope, inside)
        by_slope += tl.sum(by_phase * x, 0)
        by_shift += tl.sum(by_phase, 0)
        by_ramp += tl.sum(grad * (tl.where(rises, top, 1.0 - top) - value / ramp), 0)
    partial = sums_at + tl.program_id(0) * 3 * channels + channel
    tl.store(partial, by_slope, real)
    tl.store(partial + channels, by_shift, real)
    tl.store(partial + 2 * channels, by_ramp, real)


@triton.jit
def _larger(a, b, noise, std, RAMP: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """max(a, b) by a look-up, and its derivative by a; that by b is what is missing to one."""
    phase = a - b + noise * std
    phase = phase - tl.floor(phase + 0.5)
    rises = phase >= 0
    along = tl.where(rises, phase, phase + 0.5)
    clipped = tl.minimum(tl.maximum(along, 0.0), RAMP)
    slope = tl.where((along > 0) & (along < RAMP), tl.where(rises, 1.0, -1.0), 0.0)
    return b + tl.where(rises, clipped, RAMP - clipped), slope


@triton.jit
def _pool(x_at, turns_at, stds_at, seed_at, grad_at, out_at, count, channels, height, width,
          BACK: tl.constexpr, RAMP: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # fmt: skip  # noqa: N803
    """Windows of 2 x 2; ``out`` is the pooled values, or with BACK the gradient by ``x``."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    channel = place % channels
    window = place // channels
    columns, rows = width // 2, height // 2
    upper_row, left = window // columns % rows * 2, window % columns * 2
    corner = ((window // (columns * rows) * height + upper_row) * width + left) * channels + channel
    turns = tl.load(turns_at + channel, inside, 1.0)
    first, later = tl.load(stds_at), tl.load(stds_at + 1)
    noise_a, noise_b, noise_c, _ = tl.randn4x(tl.load(seed_at), place)
    below = width * channels
    v00 = tl.load(x_at + corner, inside, 0.0) * turns
    v01 = tl.load(x_at + corner + channels, inside, 0.0) * turns
    v10 = tl.load(x_at + corner + below, inside, 0.0) * turns
    v11 = tl.load(x_at + corner + below + channels, inside, 0.0) * turns
    upper, by_00 = _larger(v00, v01, noise_a, first, RAMP)
    lower, by_10 = _larger(v10, v11, noise_b, first, RAMP)
    best, by_upper = _larger(upper, lower, noise_c, later, RAMP)
    if BACK:
        grad = tl.load(grad_at + place, inside, 0.0)
        up, down = grad * by_upper, grad * (1 - by_upper)
        tl.store(out_at + corner, up * by_00, inside)
        tl.store(out_at + corner + channels, up * (1 - by_00), inside)
        tl.store(out_at + corner + below, down * by_10, inside)
        tl.store(out_at + corner + below + channels, down * (1 - by_10), inside)
    else:
        tl.store(out_at + place, best / turns, inside)


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
        _look_up[grid](x, *vectors, stds, seed, out, rows, channels, levels, **tiles)
        ctx.save_for_backward(x, *vectors, stds, seed)
        ctx.levels = levels
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, slope, shift, ramp, stds, seed = ctx.saved_tensors
        rows, channels, grid, tiles = _grid(x)
        out = torch.empty_like(x)
        sums = torch.empty(grid[0], 3, channels, device=x.device)
        grad = channels_last(grad)
        _look_up_back[grid](x, grad, slope, shift, ramp, stds, seed, out, sums, rows, channels, ctx.levels, **tiles)
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
        _pool[(triton.cdiv(out.numel(), 1024),)](
            x, turns, stds, seed, x, out, out.numel(), channels, height, width, BACK=False, RAMP=ramp, BLOCK=1024
        )
        ctx.save_for_backward(x, turns, stds, seed)
        ctx.ramp = ramp
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, turns, stds, seed = ctx.saved_tensors
        grad = channels_last(grad.float())
        out = torch.zeros_like(x)
        _, channels, height, width = x.shape
        _pool[(triton.cdiv(grad.numel(), 1024),)](
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
    def backward(ctx: Any, by_variance: Tensor, by_mean: Tensor) -> Any:  # type: ignore[override]
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
    result: Tensor = _LookUp.apply(x, slope, shift, ramp, stds, levels, dtype)  # type: ignore[no-untyped-call]
    return result


def max_pool(x: Tensor, turns: Tensor, stds: Tensor, ramp: float) -> Tensor:
    """Maxima of windows of 2 x 2, as models.nn.lookup.max_pool; ``stds``: of both rounds' noise in turns, float32 [2]."""
    result: Tensor = _Pool.apply(x, turns, stds, ramp)  # type: ignore[no-untyped-call]
    return result


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each channel of [B, C, ...]."""
    variance, mean = _Moments.apply(x)  # type: ignore[no-untyped-call]
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
