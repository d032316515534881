# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, unused-ignore"
"""Triton kernels of a look-up and of a pool with their noise, each way; models.nn.fused calls them.

Values lie channels last: a tensor is [rows, channels], and a program works on tiles of it. ``x_at`` and its like are addresses.
"""

import triton
import triton.language as tl


@triton.jit
def _noisy_phase(x, slope, shift, noise, std):
    phase = x * slope + shift + noise * std
    return phase - tl.floor(phase + 0.5)


@triton.jit
def _tile(rows, channels, TILE_ROWS: tl.constexpr, TILE_CHANNELS: tl.constexpr, ROUNDS: tl.constexpr, k):  # noqa: N803
    row = (tl.program_id(0) * ROUNDS + k) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    channel = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    inside = (row[:, None] < rows) & (channel[None, :] < channels)
    return row[:, None] * channels + channel[None, :], inside


@triton.jit
def look_up(x_at, slope_at, shift_at, ramp_at, stds_at, seed_at, out_at, rows, channels, levels,
             TILE_ROWS: tl.constexpr, TILE_CHANNELS: tl.constexpr, ROUNDS: tl.constexpr):  # fmt: skip  # noqa: N803
    """Levels plus the bootstrap's noise; ``stds_at``: deviations of both noises."""
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
def look_up_back(x_at, grad_at, slope_at, shift_at, ramp_at, stds_at, seed_at, out_at, sums_at, rows, channels, levels,
                  TILE_ROWS: tl.constexpr, TILE_CHANNELS: tl.constexpr, ROUNDS: tl.constexpr):  # fmt: skip  # noqa: N803
    """Gradient by ``x``, and this program's sums of those by slope, shift and ramp, [programs, 3, channels]."""
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
def _larger(a, b, noise, std, RAMP: tl.constexpr):  # noqa: N803
    """max(a, b) by a look-up, and its derivative by a; that by b is what is missing to one."""
    phase = a - b + noise * std
    phase = phase - tl.floor(phase + 0.5)
    rises = phase >= 0
    along = tl.where(rises, phase, phase + 0.5)
    clipped = tl.minimum(tl.maximum(along, 0.0), RAMP)
    slope = tl.where((along > 0) & (along < RAMP), tl.where(rises, 1.0, -1.0), 0.0)
    return b + tl.where(rises, clipped, RAMP - clipped), slope


@triton.jit
def pool(x_at, turns_at, stds_at, seed_at, grad_at, out_at, count, channels, height, width,
          BACK: tl.constexpr, RAMP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip  # noqa: N803
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
