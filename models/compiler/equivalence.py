"""Whether a step of the converted network computes what the module's own step computes, before anything is rounded."""

from torch import Tensor

from ciphershift.errors import NotEquivalentError
from ciphershift.models.compiler import ir

TOLERANCE = 1e-3
"""Greatest difference beside the greatest value: float sums in another order differ by a thousandth of that."""


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
    raise NotEquivalentError(
        f"{operation.place}: before any rounding, the converted {type(operation).__name__} {operation.name!r} {what}; "
        "this is a fault of the conversion, not of the network: write the step in another way, and report it"
    )
