"""What every layer offers, and the few operations that a circuit on the torus offers to a layer.

A layer has two meanings. ``plain`` is its integer semantics. ``apply`` writes it down as a circuit: integer combinations of torus values,
added constants and table look-ups. he_layers.simulate runs that circuit on noisy numbers, he_layers.evaluate on LWE ciphertexts: both run
the same code of the layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError

Shape = tuple[int, ...]
"""Shape of one image's values: (C, H, W) or (length,)."""
IMAGE = "image"
"""Name of a program's input among the inputs of layers."""
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

T = TypeVar("T")
"""A batch of torus values: noisy numbers in simulate, an LWE ciphertext list in evaluate."""
MAX_EXPONENT = 6
LATER = {"later": True}
"""Metadata of a field that came after format 1: not written while it has its default, so that older programs keep their digests."""
MAX_MODULUS = 256
"""Greatest modulus of the sums in the exact profile: accumulators of at most eight bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """A sparse integer matrix [rows, columns]: ``values`` (0 is left out) at (``row``, ``column``)."""

    rows: int
    columns: int
    row: IntArray
    column: IntArray
    values: NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What a layer's circuit must know of its place.

    Attributes:
        shape: shape of the layer's input.
        delta: torus value (turns) of one integer unit of the input.
        polynomial_size: N, grid points of a table on half the torus.
    """

    shape: Shape
    delta: float
    polynomial_size: int

    def table_points(self, *, whole: bool) -> FloatArray:
        """Input in integer units at the N points j / 2N of half the torus, [N]; rounded to the nearest integer if ``whole``."""
        points: FloatArray = np.arange(self.polynomial_size) / (2 * self.polynomial_size) / self.delta
        return np.rint(points) if whole else points


class Circuit(Protocol[T]):
    """Operations on a batch ``T`` of torus values; values are addressed by their flat index in C order.

    A value is a ciphertext in he_layers.evaluate and he_layers.gpu, a number with noise in he_layers.simulate, how often it holds two
    variances in analysis.noise_budget, and a count in analysis.cost.
    """

    def linear(self, x: T, layer: LinearLayer, shape: Shape) -> T:
        """The layer's integer combinations of values of the given shape."""

    def add_constant(self, x: T, turns: FloatArray) -> T:
        """Each value plus its constant, turns [count]."""

    def add(self, a: T, b: T) -> T:
        """Sum, value by value."""

    def subtract(self, a: T, b: T) -> T:
        """Difference, value by value."""

    def select(self, x: T, index: IntArray) -> T:
        """The values at the given places, in that order."""

    def join(self, parts: list[T]) -> T:
        """The values of all parts, one part after the other; the list may be emptied on the way."""

    def lookup(
        self, x: T, tables: FloatArray, table_index: NDArray[np.int32], second: NDArray[np.int32] | None = None
    ) -> T:
        """Programmable bootstrap of each value.

        Args:
            tables: turns [tables, N]: f at the phases j / 2N; f(phase + 1/2) = -f(phase) everywhere else.
            table_index: int32 [count], the table of each value.
            second: int32 [tables], from 1 to 2N - 1: f(phase + second / 2N) of each value, too, behind the first results of all.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer(ABC):
    """One step of a Program; subclasses are frozen and check themselves at construction.

    Attributes:
        name: unique in its Program.
        inputs: names of the layers whose results it takes, joined along their first axis; none: the result of the layer before.
        shares: name of a layer before it whose arrays it has, as at each step of a recurrent network; none: it has its own.
    """

    kind: ClassVar[str]
    channelwise: ClassVar[bool] = False  # whether a channel of the result depends on one channel of the input only
    # Channels of the result for each of the input's, side by side; more than one only of a layer with ``channelwise``.
    results: ClassVar[int] = 1
    name: str
    inputs: tuple[str, ...] = field(default=(), metadata=LATER)
    shares: str | None = field(default=None, metadata=LATER)

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the result. Raises BadShapeError if the layer does not fit ``shape``."""

    @abstractmethod
    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: `[batch, *shape]` -> `[batch, *output_shape]`."""

    @abstractmethod
    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """The layer as a torus circuit."""

    @property
    def modulus(self) -> int | None:
        """Of the integers that the layer's look-ups read, or that its logits are, in the exact profile; such layers make it a field."""
        return None

    def lookups(self, shape: Shape) -> int:
        """Number of look-ups for one image."""
        return 0

    def output_delta(self, delta: float) -> float:
        """Torus value of one integer unit of the result."""
        return delta

    def part(self, start: int, stop: int) -> Self | None:
        """The layer that gives only the channels from ``start`` up to ``stop`` of the result; None if it cannot be divided so.

        A layer with ``channelwise`` takes only the channels from ``start`` up to ``stop`` of its input, any other the whole input.
        """
        return None

    def to_spec(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON part (kind, name, plain fields) and arrays by field name."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if not ("later" in field.metadata and getattr(self, field.name) == field.default)
        }
        arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
        plain = {key: value for key, value in values.items() if key not in arrays and value is not None}
        return {"kind": self.kind, **plain}, {} if self.shares else arrays

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by field name, own and shared ones."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if isinstance(value, np.ndarray)}

    def sharing(self, other: Layer) -> Self:
        """The layer with the arrays of an earlier one. Raises ProgramError unless these are the same as its own."""
        mine, given = self.arrays(), other.arrays()
        if other.kind != self.kind or mine.keys() != given.keys():
            raise ProgramError(
                f"layer {self.name!r} ({self.kind}) cannot share the arrays of {other.name!r} ({other.kind})"
            )
        if different := [key for key, value in mine.items() if not np.array_equal(value, given[key])]:
            raise ProgramError(
                f"layer {self.name!r} shares {different} of {other.name!r}, but has others; do not share them"
            )
        members: dict[str, Any] = {"shares": other.shares or other.name, **given}
        return replace(self, **members)

    @classmethod
    def from_spec(cls, spec: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Inverse of ``to_spec``. Raises ProgramError for missing or unknown fields."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()
        }
        values = {key: value for key, value in values.items() if key != "kind"} | arrays
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ProgramError(f"layer {spec.get('name')!r} ({cls.kind}) has unknown fields {unknown}; remove them")
        try:
            return cls(**values)
        except TypeError as error:
            raise ProgramError(f"layer {spec.get('name')!r} ({cls.kind}) cannot be made: {error}") from error


class LinearLayer(Layer):
    """A layer without look-up whose result is an integer combination of its input, plus constants."""

    @abstractmethod
    def combine(self, x: FloatArray) -> FloatArray:
        """The combination without constants: `[batch, *shape]` -> `[batch, *output_shape]`; exact for integers below 2^53."""

    @abstractmethod
    def entries(self, shape: Shape, rows: IntArray) -> Entries:
        """Rows of the same combination as a sparse matrix over flat indices: row i is that of output ``rows[i]``."""

    def matrix(self, shape: Shape) -> Entries:
        """All rows."""
        return self.entries(shape, np.arange(flat_size(self.output_shape(shape))))

    def combine_squares(self, x: FloatArray) -> FloatArray:
        """The combination with squared weights: what it makes of the variances of independent values."""
        entries, batch = self.matrix(x.shape[1:]), len(x)
        flat, squares = x.reshape(batch, -1), entries.values.astype(np.float64) ** 2
        sums = np.empty((batch, entries.rows))
        for row, result in zip(flat, sums, strict=True):
            result[:] = np.bincount(entries.row, weights=squares * row[entries.column], minlength=entries.rows)
        return sums.reshape(batch, *self.output_shape(x.shape[1:]))

    def products(self, shape: Shape) -> int:
        """Entries of the matrix, without making it where that would be large."""
        return len(self.matrix(shape).row)

    def plain(self, x: IntArray) -> IntArray:
        """Integer semantics: `[batch, *shape]` -> `[batch, *output_shape]`."""
        return self.combine(x.astype(np.float64)).astype(np.int64)

    def apply(self, circuit: Circuit[T], x: T, scale: Scale) -> T:
        """The combination; costs no look-up.

        Noise: the variance of each input is multiplied by the sum of the squared weights.
        """
        return circuit.linear(x, self, scale.shape)


def anti_periodic(f: Callable[[FloatArray], FloatArray], x: FloatArray, modulus: int, *, top: float) -> FloatArray:
    """``f`` on residues 0 .. modulus/2 - 1 of ``x``, continued by f(x + modulus/2) = top - f(x), as a look-up does."""
    residue = np.mod(x, modulus)
    upper = residue >= modulus / 2
    value = f(residue - upper * (modulus / 2))
    return np.where(upper, top - value, value)


def flat_size(shape: Shape) -> int:
    """Number of values in a shape."""
    return prod(shape)


def require_image(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) of ``shape``. Raises BadShapeError for a flat shape."""
    if len(shape) != 3:
        raise BadShapeError(
            f"layer {layer.name!r} ({layer.kind}) takes (C, H, W), its input is {shape}; put it before flatten"
        )
    return shape[0], shape[1], shape[2]


def check_weights(layer: Layer, weight: NDArray[np.int8], dimensions: int) -> None:
    """Raises ProgramError unless ``weight`` is int8 of ``dimensions`` axes with values 0 or +-2^e, e <= MAX_EXPONENT."""
    if weight.dtype != np.int8 or weight.ndim != dimensions or weight.size == 0:
        raise ProgramError(
            f"layer {layer.name!r} has a weight of type {weight.dtype}, shape {weight.shape}; "
            f"{layer.kind} takes int8 with {dimensions} axes"
        )
    size = np.abs(weight.astype(np.int64))
    wrong = (size > 2**MAX_EXPONENT) | ((size & (size - 1)) != 0)
    if wrong.any():
        raise ProgramError(
            f"layer {layer.name!r} has the weight {weight[wrong][0]}; weights are 0 or +-2^e with e <= {MAX_EXPONENT}: quantize them"
        )


def check_modulus(layer: Layer, modulus: int | None) -> None:
    """Raises OutOfLevelsError unless there is no modulus or it is even and at most MAX_MODULUS."""
    if modulus is not None and not (isinstance(modulus, int) and modulus % 2 == 0 and 4 <= modulus <= MAX_MODULUS):
        raise OutOfLevelsError(
            f"layer {layer.name!r} has modulus = {modulus}; it takes an even number from 4 to {MAX_MODULUS}"
        )


def check_one_turn(layer: Layer, modulus: int | None, delta: float) -> None:
    """Raises ProgramError unless ``modulus`` units of ``delta`` turns are one turn."""
    if modulus is not None and abs(modulus * delta - 1) > 1e-9:
        raise ProgramError(
            f"layer {layer.name!r} has modulus {modulus}, its input has {delta} turns for one unit; give it delta = 1 / {modulus}"
        )


def check_window(layer: Layer, window: dict[str, object], *, least: int) -> None:
    """Raises ProgramError unless every value is a pair of integers, each at least ``least``."""
    for name, value in window.items():
        if not (isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) and v >= least for v in value)):
            raise ProgramError(
                f"layer {layer.name!r} has {name} = {value!r}; it takes two integers of at least {least}"
            )


def window_size(layer: Layer, shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> tuple[int, int]:
    """(H', W') of a window moved over (C, H, W). Raises BadShapeError if it does not fit once."""
    _, height, width = require_image(layer, shape)
    if height + 2 * padding[0] < kernel[0] or width + 2 * padding[1] < kernel[1]:
        raise BadShapeError(
            f"layer {layer.name!r} moves a window of {kernel} over an image of {shape} with padding {padding}"
        )
    return (height + 2 * padding[0] - kernel[0]) // stride[0] + 1, (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
