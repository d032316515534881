"""The table of any function: which part of it is the ramp, and which integers it gives, by what the calibration data reach."""

import torch
from torch import Tensor

from ciphershift.errors import BadCalibrationError
from ciphershift.models.compiler import ir
from ciphershift.models.nn.activations import LookUp, per_channel

CLIPPED = 1e-3
"""Share of a function's results that are cut off at each end of its integers."""
SLACK = 0.1
"""Of the range of the inputs: how far beyond it, on each side, the ramp may reach."""
FLAT = 0.25
"""Change of a result, in integers, that is none."""
POINTS = 2048
LEAST = 1e-2
"""Least range of a channel's results beside the widest channel's."""


def require_finite(operation: ir.Operation, results: Tensor) -> None:
    """Raises BadCalibrationError if a step gives numbers that are NaN or infinite."""
    if wrong := int((~torch.isfinite(results)).sum()):
        raise BadCalibrationError(
            f"{operation.place}: {operation.name!r} has no finite value for {wrong} of {results.numel()} numbers of the calibration data; "
            "clip its input to a range where it is defined (torch.clamp)"
        )


def fit_results(node: LookUp, operation: ir.LookUp, real: Tensor, *, uniform: bool, power: bool) -> None:
    """Chooses what an integer stands for, and which integers there are; zero is one of them.

    Args:
        node: to be set.
        operation: has the function.
        real: the module's inputs, [B, C, ...].
        uniform: all channels must share one unit.
        power: units must be powers of two divided by one number for the whole network.

    Raises:
        BadCalibrationError: the function has no finite value for some of the inputs.
    """
    results = operation.function(real).float()
    require_finite(operation, results)
    rows = _sample(results.transpose(0, 1).flatten(1))
    low = torch.quantile(rows, CLIPPED, dim=1).clamp_max(0.0)
    high = torch.quantile(rows, 1 - CLIPPED, dim=1).clamp_min(0.0)
    width = high - low
    widest = float(width.max())
    high = torch.where(width < LEAST * widest, high + LEAST * widest, high) if widest > 0 else high + 1.0
    levels = node.levels
    unit = (high - low) / levels
    unit = unit.max().expand_as(unit) if uniform else unit
    unit = 2.0 ** torch.log2(unit * levels).ceil() / levels if power else unit
    node.unit.copy_(unit)
    node.bottom.copy_((low / unit).round())
    node.top.copy_(torch.maximum((high / unit).round(), node.bottom + 1))
    node.lowest, node.levels = int(node.bottom.min()), int(node.top.max())


def fit_ramp(node: LookUp, operation: ir.LookUp, real: Tensor) -> None:
    """Chooses where the ramp begins and ends: the part of the inputs' range, and a little beyond, on which the integers change.

    Args:
        node: with its gain and what ``fit_results`` sets.
        operation: has the function.
        real: the module's inputs, [B, C, ...].
    """
    rows = real.transpose(0, 1).flatten(1)
    least, greatest = rows.amin(1), rows.amax(1)
    width = (greatest - least).clamp_min(1e-3 * float((greatest - least).max()) + 1e-6)
    for slack in (SLACK, 0.0):  # without, if the function is not defined beyond the range
        start, stop = least - slack * width, least + (1 + slack) * width
        grid = start + torch.linspace(0, 1, POINTS).view(-1, 1) * (stop - start)
        found = node.values((grid / node.gain).view(*grid.shape, *[1] * (real.dim() - 2))).reshape(grid.shape)
        if bool(torch.isfinite(found).all()):
            break
    changed = (found - found[0]).abs() > FLAT, (found - found[-1]).abs() > FLAT
    first = changed[0].float().argmax(0).clamp_min(1) - 1
    last = POINTS - 1 - (changed[1].flip(0).float().argmax(0).clamp_min(1) - 1)
    constant = ~changed[0].any(0)
    first, last = torch.where(constant, 0, first), torch.where(constant, POINTS - 1, last)
    node.low.copy_(grid.gather(0, first[None])[0] / node.gain)
    node.high.copy_(grid.gather(0, last[None])[0] / node.gain)


def comparable(node: LookUp, real: Tensor, expected: Tensor, turns: Tensor) -> Tensor:
    """Where a look-up should be its function: inside its ramp, and where the result is not cut off. Bool [B, C, ...].

    Args:
        node: fitted.
        real: the module's inputs; ``expected``: its results.
        turns: for one unit of the node's input, [C].
    """
    u = real / per_channel(node.gain, real)
    low, high = (per_channel(bound, real) for bound in node.bounds(turns))
    integers = expected / per_channel(node.unit, real)
    inside = (integers >= per_channel(node.bottom, real)) & (integers <= per_channel(node.top, real))
    return (u >= low) & (u <= high) & inside


def _sample(values: Tensor, limit: int = 100_000) -> Tensor:
    """At most ``limit`` of each row's values, evenly spread: enough for a quantile."""
    return values[:, :: max(1, values.shape[1] // limit)]
