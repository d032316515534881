"""What a module would cost as an encrypted network, and what in it cannot be evaluated, before anything is trained."""

from dataclasses import dataclass
from math import prod

from torch import nn

from he_layers.crypto import params as parameter_sets
from he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer
from he_layers.crypto.evaluation_keys import EvaluationKeys
from he_layers.layers import Shape
from models.operations import Convolution, Dense, Finding, Maximum, Operation, Ramp
from models.simplify import simplify
from models.trace import read

SECONDS_PER_LOOKUP = 1.5e-3
"""On two cores under FAST_N512 (see the README's figures)."""
SECONDS_PER_PRODUCT = 0.5e-6
"""On two cores: one shifted addition of 2049 words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """One step: its place in the module, what it does, the shape of its result, and for one picture its look-ups and products."""

    place: str
    operation: str
    shape: Shape
    lookups: int
    products: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """For one picture; keys are sent once.

    Attributes:
        lookups: programmable bootstraps.
        seconds: predicted for two cores.
        products: of weights and ciphertexts, at most (weights of zero cost nothing).
        upload_bytes: of the encrypted picture; ``download_bytes`` of the encrypted logits.
        key_bytes: of the evaluation keys.
    """

    lookups: int
    products: int
    seconds: float
    upload_bytes: int
    download_bytes: int
    key_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Findings, and if there are none, the steps in the order of evaluation and their cost."""

    findings: tuple[Finding, ...]
    steps: tuple[StepCost, ...] = ()
    cost: Cost | None = None


def check(module: nn.Module, input_shape: Shape, *, params: str = parameter_sets.DEFAULT) -> Report:
    """Reads a module for pictures of ``input_shape`` (C, H, W); trains nothing and changes nothing.

    Raises:
        UnknownParamsError: no parameter set has this name.
    """
    parameter_set = parameter_sets.get(params)
    reading = simplify(read(module, input_shape))
    if reading.findings:
        return Report(findings=tuple(reading.findings))
    shapes = {operation.name: operation.shape for operation in reading.operations}
    steps = tuple(
        StepCost(
            place=operation.place,
            operation=type(operation).__name__.lower(),
            shape=operation.shape,
            lookups=_lookups(operation),
            products=_products(operation),
        )
        for operation in reading.operations
    )
    classes = shapes[reading.operations[-1].name][0]
    lookups, products = (sum(getattr(step, field) for step in steps) for field in ("lookups", "products"))
    cost = Cost(
        lookups=lookups,
        products=products,
        seconds=lookups * SECONDS_PER_LOOKUP + products * SECONDS_PER_PRODUCT,
        upload_bytes=CkksCiphertext.nbytes(parameter_set, prod(input_shape)),
        download_bytes=PackedAnswer.nbytes(parameter_set, classes),
        key_bytes=EvaluationKeys.nbytes(parameter_set),
    )
    return Report(findings=(), steps=steps, cost=cost)


def _lookups(operation: Operation) -> int:
    if isinstance(operation, Ramp):
        return prod(operation.shape)
    return prod(operation.shape) * (prod(operation.kernel) - 1) if isinstance(operation, Maximum) else 0


def _products(operation: Operation) -> int:
    if not isinstance(operation, Convolution | Dense):
        return 0
    return prod(operation.shape) * operation.weight[0].numel()
