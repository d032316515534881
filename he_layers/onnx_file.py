"""What the ONNX file of a stem may hold: arithmetic on values of known size, and no code. Needs the extra ``stem``.

A client runs a file that a server chose. So before onnxruntime sees it, everything is refused that could reach outside of the file
(external data), that is not arithmetic of OPERATORS (custom operators, functions, strings), whose work is not known beforehand (branches,
loops, sizes that depend on values), or that gives something else every time (random numbers). What onnxruntime gets is the model as it
was read and checked here, never the server's bytes, which another reader might take for something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from ciphershift.errors import BadStemError, ConfigurationError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

OPSETS = range(13, 22)
"""Versions of the standard's operators that the oldest onnxruntime of the extra knows."""
_NAMES = """
Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape
Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf
IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad
Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize Round ScatterElements ScatterND Selu Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign
SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
"""What torch.onnx writes for ordinary arithmetic; client/web/src/onnx-file.ts has the same."""
TYPE_BYTES = {1: 4, 2: 1, 3: 1, 6: 64, 7: 64, 9: 1, 10: 2, 11: 8}
"""Types of numbers that a file may use, as onnx.TensorProto numbers them (no strings), and their bytes. Where int32 and int64 are sizes,
readers make an object of each."""
REAL = (1, 10, 11)
POSITIVE = {"blocksize", "dilations", "group", "kernel_shape", "num_groups", "num_outputs", "size", "strides"}
"""Attributes that readers divide by."""
MOST_BYTES = 1 << 30
"""Of the weights and all results together."""
MOST_WORK = 1 << 37
"""Multiply-adds of one sample: some seconds."""
INSTALL = "the model has a public part, which this machine computes: pip install 'ciphershift[stem]'"

Sizes = Mapping[str, tuple[int, ...]]


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
    if content[4:8] == b"ORTM":
        raise bad("is of onnxruntime's own format; write it as ONNX")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own class of errors is not public
        raise bad("cannot be read as ONNX") from error
    model.DiscardUnknownFields()
    for field in ("producer_name", "producer_version", "metadata_props", "doc_string"):  # some are read by onnxruntime
        model.ClearField(field)
    for problem in _problems(model):
        raise bad(problem)
    _require_shapes(model, input_shape, shape)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, all of which mean that it cannot run the file
        raise bad(f"is refused by onnxruntime: {short(error)}") from error


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
        for attribute in node.attribute:
            yield from _attribute(node, attribute)
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            yield f"uses {node.domain[:40]}:{node.op_type[:40]}; only ordinary arithmetic of the ONNX standard is run, see docs/networks.md"


def _attribute(node: NodeProto, attribute: AttributeProto) -> Iterator[str]:
    if attribute.HasField("g") or attribute.graphs:
        yield f"branches or loops ({node.op_type[:40]}); its work must be known beforehand"
    tensors = [attribute.t, *attribute.tensors]
    if any(map(_external, tensors)) or attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        yield "has sparse or external data; write all weights into the file"
    if (
        attribute.name in POSITIVE
        and min([attribute.i, *attribute.ints] if attribute.HasField("i") else attribute.ints, default=1) < 1
    ):
        yield f"has {attribute.name} below 1 ({node.op_type[:40]})"


def _external(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location == tensor.EXTERNAL


def _require_shapes(model: ModelProto, input_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Every result has a size that is known, and all together are not too large; input and output are those that are stated."""
    import onnx

    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]  # with what the file claims of its weights
    graph.input.extend(inputs)
    del graph.value_info[:]  # and of its intermediate results
    _require_shape("input", inputs, input_shape)
    _require_shape("output", list(graph.output), shape)
    constants = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    _require_memory(
        [(tensor.name, tuple(tensor.dims), tensor.data_type) for tensor in [*graph.initializer, *constants]]
    )
    try:
        onnx.checker.check_model(model)
        unstated = onnx.ModelProto()
        unstated.CopyFrom(model)
        for value in unstated.graph.output:
            value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(unstated, check_type=True, strict_mode=True).graph
    except Exception as error:  # onnx raises classes of two modules
        raise bad(f"is not valid: {short(error)}") from error
    if _sizes(inferred.output[0]) != (1, *shape):
        raise bad(
            "states an output whose size does not follow from that of the input; export it for one sample of fixed shape"
        )
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    sizes = {value.name: _sizes(value) for value in values} | {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer
    }
    types = {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }
    results = [name for node in inferred.node for name in node.output if name]
    _require_memory([(name, sizes.get(name, (0,)), types.get(name, 0)) for name in [*weights, *results]])
    work = sum(_work(node, sizes) for node in inferred.node)
    if work > MOST_WORK:
        raise bad(f"takes {work} multiply-adds; at most {MOST_WORK}: cut the module earlier")
    _require_divisors(inferred, types)


def _require_shape(what: str, values: list[Any], wanted: tuple[int, ...]) -> None:
    found = [(value.type.tensor_type.elem_type, _sizes(value)) for value in values]
    if found != [(1, (1, *wanted))]:
        told = ", ".join("x".join(map(str, sizes)) for _, sizes in found)[:100]
        raise bad(
            f"has {len(found)} {what}s ({told}); one of float32 1x{'x'.join(map(str, wanted))} is wanted: one sample at a time"
        )


def _require_memory(values: list[tuple[str, tuple[int, ...], int]]) -> None:
    """Values, with their sizes and types, are of numbers and of known size, and not too large together."""
    total = 0
    for name, sizes, kind in values:
        if any(side < 1 for side in sizes):
            raise bad(f"has a result of unknown size ({name[:40]}); export it for one sample of fixed shape")
        if kind not in TYPE_BYTES:
            raise bad(f"has a result that is not of numbers ({name[:40]}); use floating point")
        total += prod(sizes) * TYPE_BYTES[kind]
    if total > MOST_BYTES:
        raise bad(f"has weights and results of {total} bytes; at most {MOST_BYTES}: cut the module earlier")


def _work(node: NodeProto, sizes: Sizes) -> int:
    """Multiply-adds of a node, or what it reads and writes."""
    counts = [prod(sizes[name]) for name in [*node.input, *node.output] if name]
    result = prod(sizes[node.output[0]])
    products = 0
    if node.op_type == "Conv":
        products = result * prod(sizes[node.input[1]][1:])
    elif node.op_type == "ConvTranspose":
        products = counts[0] * prod(sizes[node.input[1]][1:])
    elif node.op_type == "MatMul":
        products = result * sizes[node.input[0]][-1]
    elif node.op_type == "Gemm":
        products = counts[0] * sizes[node.output[0]][1]
    elif node.op_type in ("AveragePool", "MaxPool"):
        products = result * prod(
            next(attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape")
        )
    return sum(counts) + products


def _require_divisors(graph: GraphProto, types: Mapping[str, int]) -> None:
    """Processors trap where integers are divided by 0, and the least one by -1."""
    from onnx import numpy_helper

    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                known[node.output[0]] = attribute.t
    for node in graph.node:
        if node.op_type not in ("Div", "Mod") or types[node.output[0]] in REAL:
            continue
        divisor = known.get(node.input[1])
        if divisor is None or numpy_helper.to_array(divisor).min() < 1:
            raise bad(f"divides integers ({node.op_type}) by something else than constants above 0; divide floats")


def _sizes(value: Any) -> tuple[int, ...]:
    """Sides of a value; 0 where one is not known."""
    tensor = value.type.tensor_type
    return tuple(side.dim_value for side in tensor.shape.dim) if tensor.HasField("shape") else (0,)


def bad(problem: str) -> BadStemError:
    """What is wrong with a stem's file."""
    return BadStemError(f"the ONNX file of the public part {problem}")


def short(error: Exception) -> str:
    """The message of an error of a library, in one line."""
    return " ".join(str(error).split())[:200]
