"""Pools of every kind as max-pools and average pools of plain windows."""

from itertools import pairwise
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor

from ciphershift.models.compiler import ir
from ciphershift.models.compiler.step import Call, UnsupportedStepError, Value

DIVISOR = "use windows that are all of one size: no ceil_mode, count_include_pad=True, an output size that divides the input's"
MAX_WINDOW = 1024
"""Values that are summed for one average."""


def max_pool(
    call: Call, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Value:
    """nn.MaxPool1d and nn.MaxPool2d with all options."""
    x, result = _as_image(call, x)
    kernel, padding, dilation = _sides(kernel, call), _sides(padding, call, row=0), _sides(dilation, call)
    stride = _sides(stride, call) if stride not in ((), [], None) else kernel
    if dilation == (1, 1) and result[1:] == _floor_size(x, kernel, stride, padding):
        pooled = call.add(ir.MaxPool2d, x, shape=result, kernel=kernel, stride=stride, padding=padding)
        return call.reshape(pooled, call.shape)
    starts = [[i * s - p for i in range(count)] for count, s, p in zip(result[1:], stride, padding, strict=True)]
    taps = [
        [[start + k * d for k in range(side)] for start in axis]
        for axis, side, d in zip(starts, kernel, dilation, strict=True)
    ]
    return _maximum(call, x, taps)


def adaptive_max_pool(call: Call, x: Value, size: Any) -> Value:
    """The first result of nn.AdaptiveMaxPool1d and 2d, to any size."""
    if call.item:
        raise UnsupportedStepError("returns indices", "use return_indices=False")
    x, result = _as_image(call, x)
    taps = [
        [list(window) for window in _adaptive(side, count)] for side, count in zip(x.shape[1:], result[1:], strict=True)
    ]
    return _maximum(call, x, taps)


def avg_pool(
    call: Call,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """nn.AvgPool1d and nn.AvgPool2d with all options."""
    x, result = _as_image(call, x)
    kernel, padding = _sides(kernel, call), _sides(padding, call, row=0)
    stride = _sides(stride, call) if stride not in ((), [], None) else kernel
    uniform = result[1:] == _floor_size(x, kernel, stride, padding)
    counted = count_include_pad or padding == (0, 0) or divisor_override is not None
    if uniform and counted:
        pooled = call.add(ir.AvgPool2d, x, shape=result, kernel=kernel, stride=stride, padding=padding)
    else:
        windows = [
            [
                _window(i * s - p, k, side, p, whole=divisor_override is not None, padded=count_include_pad)
                for i in range(count)
            ]
            for count, s, p, k, side in zip(result[1:], stride, padding, kernel, x.shape[1:], strict=True)
        ]
        pooled = _average(call, x, windows, result)
    if divisor_override is not None:
        pooled = call.affine(pooled, prod(kernel) / divisor_override, 0.0)
    return call.reshape(pooled, call.shape)


def _window(start: int, length: int, side: int, padding: int, *, whole: bool, padded: bool) -> list[int]:
    """Places that a window along one axis is divided by the number of; -1 where there is padding."""
    end = start + length
    if not whole:  # what lies beyond the padding never counts, and the padding itself only where it is asked for
        start, end = (start, min(end, side + padding)) if padded else (max(start, 0), min(end, side))
    return [place if 0 <= place < side else -1 for place in range(start, end)]


def adaptive_avg_pool(call: Call, x: Value, size: Any) -> Value:
    """nn.AdaptiveAvgPool1d and 2d, to any size."""
    x, result = _as_image(call, x)
    windows = [_adaptive(side, count) for side, count in zip(x.shape[1:], result[1:], strict=True)]
    lengths = [{len(window) for window in axis} for axis in windows]
    strides = [{b.start - a.start for a, b in pairwise(axis)} or {len(axis[0])} for axis in windows]
    if any(len(found) > 1 for found in (*lengths, *strides)):
        return call.reshape(
            _average(call, x, [[list(window) for window in axis] for axis in windows], result), call.shape
        )
    kernel, stride = ((each[0].pop(), each[1].pop()) for each in (lengths, strides))
    pooled = call.add(ir.AvgPool2d, x, shape=result, kernel=kernel, stride=stride, padding=(0, 0))
    return call.reshape(pooled, call.shape)


def _average(call: Call, x: Value, windows: list[list[list[int]]], result: tuple[int, int, int]) -> Value:
    """The average of windows of several sizes: each value as often as makes all of them one size.

    Args:
        call: being read.
        x: an image.
        windows: places of each window along both axes, -1 for zero.
        result: shape of the result.
    """
    kernel = (lcm(*map(len, windows[0])), lcm(*map(len, windows[1])))
    if prod(kernel) > MAX_WINDOW:
        raise UnsupportedStepError(
            f"averages {x.shape[1:]} to {result[1:]} by windows that become one size only with {prod(kernel)} values",
            DIVISOR,
        )
    rows, columns = (
        [place for window in axis for place in window for _ in range(size // len(window))]
        for axis, size in zip(windows, kernel, strict=True)
    )
    wide = call.gather((x,), grid(x, rows, columns), (x.shape[0], len(rows), len(columns)))
    return call.add(ir.AvgPool2d, wide, shape=result, kernel=kernel, stride=kernel, padding=(0, 0))


def _maximum(call: Call, x: Value, taps: list[list[list[int]]]) -> Value:
    """Greatest value of windows given by the places of their taps along both axes; taps beyond the border hold nothing."""
    kernel = (max(len(window) for window in taps[0]), max(len(window) for window in taps[1]))
    filled = []
    for axis, side, length in zip(taps, x.shape[1:], kernel, strict=True):
        inside = [[place for place in window if 0 <= place < side] for window in axis]
        filled.append(
            [window + [window[-1]] * (length - len(window)) for window in inside]
        )  # a value twice changes no maximum
    wide = _spread(call, x, filled)
    shape = (x.shape[0], len(taps[0]), len(taps[1]))
    pooled = call.add(ir.MaxPool2d, wide, shape=shape, kernel=kernel, stride=kernel, padding=(0, 0))
    return call.reshape(pooled, call.shape)


def _spread(call: Call, x: Value, taps: list[list[list[int]]]) -> Value:
    """The windows side by side, so that they no longer overlap."""
    rows, columns = ([place for window in axis for place in window] for axis in taps)
    return call.gather((x,), grid(x, rows, columns), (x.shape[0], len(rows), len(columns)))


def grid(x: Value, rows: list[int], columns: list[int]) -> Tensor:
    """Flat places of an image's values at these rows and columns, in all channels; -1 for zero where either is -1."""
    y, z = torch.tensor(rows), torch.tensor(columns)
    places = torch.arange(prod(x.shape)).view(x.shape)[:, y.clamp_min(0)][:, :, z.clamp_min(0)]
    return torch.where((y[:, None] >= 0) & (z >= 0), places, -1).flatten()


def _adaptive(side: int, count: int) -> list[range]:
    return [range(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]


def _as_image(call: Call, x: Value) -> tuple[Value, tuple[int, int, int]]:
    """A series [C, L] as an image of one row; and the shape of the result as an image."""
    if len(x.shape) == 2:
        return call.reshape(x, (x.shape[0], 1, x.shape[1])), (call.shape[0], 1, call.shape[1])
    return x, (call.shape[0], call.shape[1], call.shape[2])


def _sides(value: Any, call: Call, *, row: int = 1) -> ir.Pair:
    """An option for height and width; of a series, an image of one row, the one for its row besides."""
    values = [int(v) for v in value] if isinstance(value, tuple | list) else [int(value)]
    return (row, values[0]) if len(call.shape) == 2 else (values[0], values[-1])


def _floor_size(x: Value, kernel: ir.Pair, stride: ir.Pair, padding: ir.Pair) -> tuple[int, int]:
    height, width = (
        (side + 2 * p - k) // s + 1 for side, k, s, p in zip(x.shape[1:], kernel, stride, padding, strict=True)
    )
    return height, width
