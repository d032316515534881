"""Whether a step of the converted network computes what the module's own step computes, before anything is rounded."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ciphershift.errors import NotEquivalentError
from ciphershift.models.compiler import ir

OF_SPREAD, OF_SIZE = 0.05, 2e-5
"""Greatest difference of an output: of its standard deviation, and of its greatest value, which is what float sums leave."""
TOLERANCE = 1e-3
"""Greatest difference beside the greatest value: float sums in another order differ by a thousandth of that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What may take a part of the outputs.

    Attributes:
        cause: in words; ``instead``: what helps.
        beside: what the outputs are held against.
        ordinary: correlation that networks keep; less is a warning.
        least: correlation below which the outputs say nothing, and training would not get them back.
    """

    cause: str
    beside: str
    ordinary: float
    least: float
    instead: str


CLIPPING = Damage(
    cause="what the look-ups before it clip, before any rounding,",
    beside="the module's",
    ordinary=0.9,
    least=0.1,
    instead="put a batch norm before the activations, give more calibration data of the kind that the network will see, or lower "
    "max_outside",
)
NOISE = Damage(
    cause="what rounding and the circuit's noise take",
    beside="those before rounding",
    ordinary=0.5,
    least=-1.0,
    instead="try other numbers of levels and exponents, or a parameter set with less noise",
)


def require_same(operation: ir.Operation, found: Tensor, expected: Tensor, *, beside: float = 0.0) -> None:
    """Hold a step's results against the module's.

    Args:
        operation: the step.
        found: [B, ...] of the converted network.
        expected: [B, ...] of the module.
        beside: greatest value that the step adds up, by which sums that are next to nothing are judged.

    Raises:
        NotEquivalentError: they differ.
    """
    if found.shape == expected.shape:
        scale = max(float(expected.abs().max()), float(found.abs().max()), beside, 1e-6)
        worst = float((found - expected).abs().max())
        if worst <= TOLERANCE * scale:
            return
        what = f"differs by {worst:.3g} where values reach {scale:.3g}"
    else:
        what = f"has the shape {tuple(found.shape[1:])} instead of {tuple(expected.shape[1:])}"
    raise _fault(operation, what)


def require_same_outputs(operation: ir.Operation, found: Tensor, expected: Tensor) -> None:
    """Hold each output, [B, outputs], against the module's, by its own spread: a great constant, or another output, hides nothing.

    Raises:
        NotEquivalentError: one differs.
    """
    apart, spread, size = (found - expected).abs().amax(0), expected.std(0), expected.abs().amax(0)
    wrong = (apart > OF_SPREAD * spread) & (apart > OF_SIZE * size)
    if bool(wrong.any()):
        which = int(torch.where(wrong, apart / spread.clamp_min(1e-30), 0.0).argmax())
        raise _fault(
            operation,
            f"differs in output {which} by {float(apart[which]):.3g}, which varies by {float(spread[which]):.3g} on the calibration data",
        )


def require_heard(place: str, found: Tensor, expected: Tensor, damage: Damage) -> None:
    """Hold what the whole network answers, with all that was lost on the way, against what it should.

    Every step may be the module's and its results be lost all the same. Deep modules lose more, and training gets it back
    (models.training.loop.fine_tune), so that a low correlation is a warning.

    Args:
        place: of the last step.
        found: [B, outputs] of the converted network.
        expected: the same without what is lost.
        damage: what may be lost.

    Raises:
        NotEquivalentError: what is left has nothing to do with the outputs.
    """
    left, wanted = found - found.mean(0), expected - expected.mean(0)
    if float(wanted.norm()) <= OF_SIZE * float(expected.norm()):  # constants
        return
    correlation = float((left * wanted).sum() / (left.norm() * wanted.norm()).clamp_min(1e-30))
    if correlation >= damage.ordinary:
        return
    what = (
        f"{place}: {damage.cause} leaves of the outputs a correlation of {correlation:.2f} with {damage.beside} on the calibration data: "
        f"{damage.instead}"
    )
    if not correlation >= damage.least:
        raise NotEquivalentError(what)
    warnings.warn(f"{what}; or train it on (fine_tune)", stacklevel=2)


def _fault(operation: ir.Operation, what: str) -> NotEquivalentError:
    return NotEquivalentError(
        f"{operation.place}: before any rounding, the converted {type(operation).__name__} {operation.name!r} {what}; "
        "this is a fault of the conversion, not of the network: write the step in another way, and report it"
    )
