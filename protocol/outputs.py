"""What a module returns: one output or several by name, each after the softmax or sigmoid that the client does after decryption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


OUTPUTS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "softmax": lambda logits: np.exp(_log_softmax(logits)),
    "log_softmax": _log_softmax,
    "sigmoid": lambda logits: np.exp(-np.logaddexp(0.0, -logits)),
}
"""By name, on logits [n, classes]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One of several outputs, or an output that is no vector.

    Attributes:
        name: as the module has it, or as its place; empty for an only output.
        shape: for one sample.
        factor: of its values, beside the scale that all outputs share.
        function: what the module does to it at its end, one of OUTPUTS.
    """

    name: str
    shape: tuple[int, ...]
    factor: float = 1.0
    function: str | None = None


class Shaped(Protocol):
    """What ``separated`` needs to know of a part."""

    @property
    def name(self) -> str:
        """Of the output."""

    @property
    def shape(self) -> tuple[int, ...]:
        """For one sample."""


P = TypeVar("P", bound=Shaped)


def slices(parts: Sequence[P]) -> Iterator[tuple[P, slice]]:
    """Each part with its place among the values of all, one part after the other."""
    start = 0
    for part in parts:
        yield part, slice(start, start + prod(part.shape))
        start += prod(part.shape)


def separated(parts: Sequence[Shaped], values: FloatArray) -> FloatArray | dict[str, FloatArray]:
    """Values [n, all] as the module returns them: by name [n, *shape], or those of an only output."""
    found = {part.name: values[:, place].reshape(len(values), *part.shape) for part, place in slices(parts)}
    return found[""] if list(found) == [""] else found
