"""What the ONNX file of a stem may hold: arithmetic on values of known size, and no code. Needs the extra ``stem``.

A client runs a file that a server chose. So before onnxruntime sees it, everything is refused that could reach outside of the file
(external data), that is not the standard's own arithmetic (custom operators, functions), whose work is not known beforehand (branches,
loops, sizes that depend on values), or that gives something else every time (random numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from ciphershift.errors import BadStemError, ConfigurationError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSETS = range(13, 22)
"""Versions of the standard's operators that the oldest onnxruntime of the extra knows."""
MOST_VALUES = 1 << 26
"""Of one intermediate result, 256 MB."""
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
INSTALL = "the model has a public part, which this machine computes: pip install 'ciphershift[stem]'"


def session(content: bytes, input_shape: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """An onnxruntime.InferenceSession of the file; it takes float32 [1, ...] of ``input_shape``, and gives [1, ...] of ``shape``.

    Raises:
        BadStemError: the file is not one that a stem may be.
        ConfigurationError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed; {INSTALL}") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own class of errors is not public
        raise _bad("cannot be read as ONNX") from error
    for problem in _problems(model):
        raise _bad(problem)
    _require_shapes(model, input_shape, shape)
    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, all of which mean that it cannot run the file
        raise _bad(f"is refused by onnxruntime: {_short(error)}") from error


def _problems(model: ModelProto) -> Iterator[str]:
    """What the file holds that it may not."""
    for imported in model.opset_import:
        if imported.domain not in ("", "ai.onnx"):
            yield f"uses operators of {imported.domain[:40]!r}; only those of the ONNX standard are run"
        elif imported.version not in OPSETS:
            yield f"is of opset {imported.version}; write it with opset {OPSETS.start} to {OPSETS.stop - 1}"
    if model.functions or model.training_info:
        yield "defines functions or training steps; write the operators out"
    graph = model.graph
    if graph.sparse_initializer or any(_external(tensor) for tensor in graph.initializer):
        yield "has sparse or external data; write all weights into the file"
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM:
            yield f"uses {node.domain[:40]}:{node.op_type[:40]}; only the arithmetic of the ONNX standard is run"
        yield from _attributes(node)


def _attributes(node: NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            yield f"branches or loops ({node.op_type[:40]}); its work must be known beforehand"
        tensors = [attribute.t, *attribute.tensors]
        if any(map(_external, tensors)) or attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            yield "has sparse or external data; write all weights into the file"


def _external(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location == tensor.EXTERNAL


def _require_shapes(model: ModelProto, input_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Every result has a size that is known and not too large; input and output are those that are stated."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for what, values, wanted in (("input", inputs, input_shape), ("output", list(model.graph.output), shape)):
        found = [(value.type.tensor_type.elem_type, _sizes(value)) for value in values]
        if found != [(onnx.TensorProto.FLOAT, (1, *wanted))]:
            told = ", ".join("x".join(map(str, sizes)) for _, sizes in found)[:100]
            raise _bad(
                f"has {len(found)} {what}s ({told}); one of float32 1x{'x'.join(map(str, wanted))} is wanted: one sample at a time"
            )
    del model.graph.value_info[:]  # what the file claims of its intermediate results
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises classes of two modules
        raise _bad(f"is not valid: {_short(error)}") from error
    sizes = {value.name: _sizes(value) for value in [*inferred.graph.value_info, *inferred.graph.output]}
    for node in inferred.graph.node:
        for name in filter(None, node.output):
            if name not in sizes or 0 in sizes[name]:
                raise _bad(f"has a result of unknown size ({node.op_type}); export it for one sample of fixed shape")
            if prod(sizes[name]) > MOST_VALUES:
                raise _bad(f"has a result of {prod(sizes[name])} values ({node.op_type}); at most {MOST_VALUES}")


def _sizes(value: Any) -> tuple[int, ...]:
    """Sides of a value; 0 where one is not known."""
    tensor = value.type.tensor_type
    return tuple(side.dim_value for side in tensor.shape.dim) if tensor.HasField("shape") else (0,)


def _bad(problem: str) -> BadStemError:
    return BadStemError(f"the ONNX file of the public part {problem}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
