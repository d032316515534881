"""What a module would cost as an encrypted network, and what in it cannot be evaluated, before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import nn

from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto import timing
from ciphershift.he_layers.crypto.ciphertexts import PackedAnswer, ciphertext_type
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.layers import MaxPool2d, Shape
from ciphershift.he_layers.program import IMAGE, Program
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.onnx_graph import as_module
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.trace import Trace, trace


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """One step: its place in the module, what it does, the shape of its result, and its look-ups for one image."""

    place: str
    operation: str
    shape: Shape
    lookups: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """For one image; keys are sent once.

    Attributes:
        lookups: a key switch and a bootstrap each.
        seconds: of the server, predicted by he_layers.analysis.cost from the times that the primitives take on this machine.
        upload_bytes: of the encrypted image; ``download_bytes`` of the encrypted logits.
        key_bytes: of the evaluation keys.
    """

    lookups: int
    seconds: float
    upload_bytes: int
    download_bytes: int
    key_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Findings, and if there are none, the steps in the order of evaluation and their cost."""

    findings: tuple[ir.Finding, ...]
    steps: tuple[StepCost, ...] = ()
    cost: Cost | None = None


STEPS = READING, BUILDING, TIMING, ADDING = (
    "reading the module",
    "building a network of its shape",
    "timing this machine",
    "adding up the layers",
)


def check(
    module: nn.Module | Path | str,
    input_shape: Shape,
    *,
    params: str = parameter_sets.DEFAULT,
    threads: int = 1,
    show: Callable[[str], None] = lambda step: None,
    public: str | None = None,
) -> Report:
    """Reads a module for images of ``input_shape`` (C, H, W); trains nothing and changes nothing.

    Args:
        module: to be converted, or the path of an ONNX file.
        input_shape: of an image.
        params: name of the parameter set.
        threads: that the server would use.
        show: is called with each of STEPS as it begins.
        public: path of the last public part; steps and cost are those of the part behind it.

    Raises:
        UnknownParamsError: no parameter set has this name.
    """
    parameter_set = parameter_sets.get(params)
    show(READING)
    whole = trace(as_module(module), input_shape, public)
    if not isinstance(whole, Trace):
        return Report(findings=tuple(whole))
    traced, input_shape = simplify(whole.result, whole.input_shape), whole.input_shape
    if traced.findings:
        return Report(findings=tuple(traced.findings))
    steps = tuple(
        StepCost(
            place=operation.place,
            operation=type(operation).__name__,
            shape=operation.shape,
            lookups=count,
        )
        for operation, count in zip(traced.operations, lookups(traced.operations, input_shape), strict=True)
    )
    show(BUILDING)
    program = stand_in(traced, input_shape, params)
    show(TIMING)
    times = timing.measure(parameter_set, threads)
    show(ADDING)
    bill = Cost(
        lookups=program.lookups,
        seconds=cost.predict(program, parameter_set, times),
        upload_bytes=ciphertext_type(program.lookups).nbytes(parameter_set, prod(input_shape)),
        download_bytes=PackedAnswer.nbytes(parameter_set, program.answer_values),
        key_bytes=EvaluationKeys.nbytes(parameter_set),
    )
    return Report(findings=(), steps=steps, cost=bill)


def lookups(operations: Sequence[ir.Operation], input_shape: Shape) -> list[int]:
    """Of each operation, for one image of this shape."""
    shapes = {operation.name: operation.shape for operation in operations} | {IMAGE: input_shape}
    counts = []
    for operation in operations:
        count = prod(shapes[operation.inputs[0]]) if isinstance(operation, ir.Activation) else 0
        if isinstance(operation, ir.MaxPool2d):
            pool = MaxPool2d(name="pool", kernel=operation.kernel, stride=operation.stride, padding=operation.padding)
            count = pool.lookups(shapes[operation.inputs[0]])
        counts.append(count)
    return counts


def stand_in(traced: ir.TraceResult, input_shape: Shape, params: str) -> Program:
    """A Program of this shape with random weights, which costs what the converted network will; what its tables hold costs nothing."""
    operations = [replace(o, function=torch.tanh) if isinstance(o, ir.LookUp) else o for o in traced.operations]
    network = Network(operations, input_shape).eval()
    network.quantize(True)
    classes = tuple(str(number) for number in range(traced.operations[-1].shape[0]))
    return export(network, name="stand-in", version="0", params=params, classes=classes)
