"""Certificates of recurrent layers: what holds for sequences of every length, computed from a Program's integers.

A layer is recurrent if its result is added up, perhaps times powers of two, with others and looked up, and these look-ups are, at the next
step, its input with the same arrays, and reach later look-ups of that kind in no other way. Let G = diag(s) W, with its weights W in
integer units of the sums and s the greatest slope of each look-up's table in levels for a unit. States that differ by e differ by at most
||G|| |e| one step later, and by a rounding: errors of at most epsilon levels in every step, of rounding and of noise, stay below
epsilon / (1 - ||G||) if the spectral norm ||G|| is below one. A table gives nothing but its levels, so that interval arithmetic bounds all
sums, of every step and for every input.

A certificate may weight the states, D = diag(weights): the same holds for the length |D e| with the norm ||D G D^-1||. Weights are needed
where a level is worth more in one state than in another. Any positive weights prove the bound: the norm is computed with those that are
stated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ciphershift.errors import ProgramError
from ciphershift.he_layers.layers.add import Add
from ciphershift.he_layers.layers.layer import IMAGE, FloatArray, LinearLayer
from ciphershift.he_layers.layers.linear import Linear
from ciphershift.he_layers.layers.look_up import LookUp
from ciphershift.he_layers.layers.table import Table

if TYPE_CHECKING:
    from ciphershift.he_layers.program import Program, Stage

TOLERANCE = 1e-9

Weights = Mapping[str, tuple[float, ...]]
"""Of the states, by name of the recurrent layer's first step; a layer without weights has one for all its states."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """Of one recurrent layer.

    Attributes:
        layer: name of its first step.
        norm: ||D G D^-1||_2, ||G||_2 without weights; below one, errors are forgotten.
        reach: greatest distance in turns of a sum from the middle of its look-up's ramp, for every input and every length, without noise.
        window: the same up to which a look-up is right: what is beyond wraps.
        weights: of each state in the length |D e| of an error, above zero, the greatest one; none: all are one, the length is in levels.
    """

    layer: str
    norm: float
    reach: float
    window: float
    weights: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Checks the weights. Raises ProgramError."""
        numbers = isinstance(self.weights, tuple) and all(
            isinstance(one, float) and 0 < one <= 1 for one in self.weights
        )
        if not numbers or max(self.weights, default=1.0) < 1:
            raise ProgramError(
                f"the certificate of recurrent layer {self.layer!r} has weights other than numbers above 0, the greatest of them 1.0; "
                "export the program again"
            )

    @property
    def error_bound(self) -> float:
        """1 / (1 - norm): errors of a step times this bound those of every step; infinite if the norm is not below one."""
        return 1 / (1 - self.norm) if self.norm < 1 else float("inf")

    @property
    def never_wraps(self) -> bool:
        """Whether no input of any length has a sum beyond the window."""
        return self.reach < self.window


def certificates(program: "Program", weights: Weights | None = None) -> tuple[Certificate, ...]:
    """Those of all recurrent layers of a Program, in order. Raises ProgramError for more or fewer weights than states."""
    return tuple(certificate for certificate, _ in recurrences(program, weights))


def weights_of(claimed: Sequence[Certificate]) -> Weights:
    """Those that certificates state."""
    return {certificate.layer: certificate.weights for certificate in claimed}


def recurrences(program: "Program", weights: Weights | None = None) -> "list[tuple[Certificate, list[Stage]]]":
    """The certificate of each recurrent layer, and the look-ups that give its states, step by step in the Program's order.

    Raises:
        ProgramError: there are more or fewer weights than states.
    """
    by_name = {stage.layer.name: stage for stage in program.stages}
    found: dict[str, Stage] = {}
    for stage in program.stages:
        if isinstance(stage.layer, Linear) and _own(stage) not in found and _state(stage, by_name) is not None:
            found[_own(stage)] = stage
    ranges = {stage.layer.name: values for stage, _, values in bounds(program)} if found else {}
    result = []
    for name, stage in found.items():
        table = _state(stage, by_name)
        assert table is not None, "a recurrent layer has a table"
        steps = [s for s in program.stages if isinstance(s.layer, Table) and _own(s) == _own(table)]
        before = _leads_to(steps[-1], by_name)
        ways = {_own(reader) for s in steps for reader in _readers(s, by_name) if reader.layer.name in before}
        if ways != {name}:
            continue  # errors of a state reach later ones in other ways, too, as through a gate
        own = (weights or {}).get(name, ())
        result.append((_certificate(name, stage, steps, by_name, ranges, own), steps))
    return result


def require(program: "Program", claimed: Sequence[Certificate]) -> None:
    """Raises ProgramError unless the certificates are those of the Program's integers, with the weights that they state."""
    real = certificates(program, weights_of(claimed))
    same = len(real) == len(claimed) and all(
        a.layer == b.layer
        and np.allclose((a.norm, a.reach, a.window), (b.norm, b.reach, b.window), rtol=TOLERANCE, atol=TOLERANCE)
        for a, b in zip(real, claimed, strict=True)
    )
    if not same:
        raise ProgramError(
            f"program {program.name!r} claims {list(claimed)} of its recurrent layers, its weights give {list(real)}; export it again"
        )


def _own(stage: "Stage") -> str:
    """The layer that has the arrays."""
    return stage.layer.shares or stage.layer.name


def _readers(stage: "Stage", by_name: "dict[str, Stage]") -> "Iterator[Stage]":
    return (other for other in by_name.values() if stage.layer.name in other.sources)


def _leads_to(stage: "Stage", by_name: "dict[str, Stage]") -> set[str]:
    """Names of all layers that a layer's values depend on."""
    found, left = set[str](), [stage]
    while left:
        new = [name for name in left.pop().sources if name in by_name and name not in found]
        found |= set(new)
        left += [by_name[name] for name in new]
    return found


def _state(stage: "Stage", by_name: "dict[str, Stage]") -> "Stage | None":
    """The look-ups of a linear layer's sums, if they have the table of those that it reads."""
    before = by_name.get(stage.sources[0])
    if before is None or not isinstance(before.layer, Table) or len(stage.sources) > 1:
        return None
    after = next(_readers(stage, by_name), None)
    while after is not None and isinstance(after.layer, Add | Linear):
        after = next(_readers(after, by_name), None)
    one = after is not None and isinstance(after.layer, Table) and _own(after) == _own(before)
    return after if one else None


def _certificate(
    name: str,
    stage: "Stage",
    steps: "list[Stage]",
    by_name: "dict[str, Stage]",
    ranges: dict[str, tuple[FloatArray, FloatArray]],
    weights: tuple[float, ...],
) -> Certificate:
    layer, table = stage.layer, steps[0].layer
    assert isinstance(layer, Linear) and isinstance(table, Table), "a recurrent layer is dense, and has a table"
    gain = layer.weight.astype(np.float64)
    after = next(_readers(stage, by_name))
    while not isinstance(after.layer, Table):
        if isinstance(after.layer, Linear):
            gain = after.layer.weight @ gain
        after = next(_readers(after, by_name))
    if weights and len(weights) != gain.shape[1]:
        raise ProgramError(
            f"recurrent layer {name!r} has {gain.shape[1]} states, its certificate {len(weights)} weights; export the program again"
        )
    norm = _norm(slopes(table)[:, None] * gain, np.array(weights or np.ones(gain.shape[1])))
    reach, window = 0.0, np.inf
    for step in steps:
        low, high = (bound + table.bias for bound in ranges[step.sources[0]])
        middle, half = table.window
        reach = max(reach, float(np.maximum(high - middle, middle - low).max() * step.delta))
        window = min(window, float(0.5 - half.max() * step.delta))
    return Certificate(layer=name, norm=norm, reach=reach, window=window, weights=weights)


def _norm(gain: FloatArray, weights: FloatArray) -> float:
    """||D G D^-1||_2 of [sums, states]; infinite if weights are too far apart for floats.

    Where a look-up gives two states, its sum moves one of them at a time, or both by less: the greater weight counts.
    """
    rows = weights.reshape(len(gain), -1).max(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        weighted = gain * (rows[:, None] / weights)
    return float(np.linalg.norm(weighted, 2)) if np.isfinite(weighted).all() else float("inf")


def slopes(table: Table) -> FloatArray:
    """Levels for one unit of a channel's input, [C]: results differ by no more than that times their inputs' difference, and a rounding."""
    if not isinstance(table, LookUp):
        return np.asarray(table.span / table.length)
    values, steps = table.values.astype(np.float64), table.values.shape[1]
    greatest = np.zeros(len(values))
    for distance in range(1, steps):
        change = np.abs(values[:, distance:] - values[:, :-distance]).max(axis=1)
        greatest = np.maximum(greatest, (change - 1) / distance)
    slopes: FloatArray = greatest * table.multiplier
    return slopes


def bounds(
    program: "Program",
) -> "Iterator[tuple[Stage, tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]]":
    """Each stage with the least and greatest integers of what it reads, and of its values, for every input: interval arithmetic."""
    lowest = (
        np.zeros(program.input.shape[0]) if program.input.encoding is None else np.array(program.input.encoding.lowest)
    )
    column = lowest.reshape(-1, *[1] * (len(program.input.shape) - 1))
    low = np.broadcast_to(column, program.input.shape).astype(np.float64)
    values = {IMAGE: (low, low + program.input.levels)}
    for stage in program.stages:
        parts = [values[source] for source in stage.sources]
        low, high = (np.concatenate([part[end] for part in parts]) for end in range(2))
        values[stage.layer.name] = _bounded(stage, low, high)
        yield stage, (low, high), values[stage.layer.name]


def _bounded(stage: "Stage", low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    layer = stage.layer
    if isinstance(layer, Table):
        shape = (-1, *[1] * (len(stage.output_shape) - 1))
        least, most = (np.repeat(end, layer.results).reshape(shape).astype(np.float64) for end in layer.extremes)
        return np.broadcast_to(least, stage.output_shape), np.broadcast_to(most, stage.output_shape)
    if isinstance(layer, LinearLayer):
        entries = layer.matrix(stage.shape)
        weights, rows = entries.values.astype(np.float64), entries.rows
        flat_low, flat_high = low.reshape(-1)[entries.column], high.reshape(-1)[entries.column]
        least, greatest = (
            np.bincount(entries.row, weights * np.where((weights > 0) == up, flat_high, flat_low), rows).astype(
                np.float64
            )
            for up in (False, True)
        )
        return least.reshape(stage.output_shape), greatest.reshape(stage.output_shape)
    low, high = (layer.plain(end[None].astype(np.int64))[0].astype(np.float64) for end in (low, high))
    return low, high  # values change places, or the greatest of some is taken: both rise with their inputs
