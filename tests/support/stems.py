"""Public parts for tests: a small ONNX file, and files that a client must refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ciphershift.he_layers.stem import Stem

RAW, SHAPE = (1, 16, 16), (1, 8, 8)


def model(*nodes: onnx.NodeProto, output: tuple[int, ...] = (1, *SHAPE), opset: int = 18) -> ModelProto:
    """A file from "image" [1, 1, 16, 16] to "out", with the weights "kernel" [1, 1, 2, 2] and "negative" []."""
    kernel = numpy_helper.from_array(KERNEL, "kernel")
    negative = numpy_helper.from_array(np.array(-1.0, dtype=np.float32), "negative")
    graph = helper.make_graph(
        list(nodes),
        "stem",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, *RAW))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, output)],
        [kernel, negative],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


KERNEL = np.array([[[[1.0, 1.0], [-0.5, -0.5]]]], dtype=np.float32)
CONV = helper.make_node("Conv", ["image", "kernel"], ["sums"], strides=[2, 2])
RELU = helper.make_node("Relu", ["sums"], ["out"])


def stem(onnx_file: bytes = b"", **changes: object) -> Stem:
    """Two by two pixels become one: relu(a + b - c / 2 - d / 2), in a range up to 2."""
    fields: dict[str, object] = {
        "onnx": onnx_file or model(CONV, RELU).SerializeToString(),
        "public": "features.1",
        "input_shape": RAW,
        "shape": SHAPE,
        "low": (0.0,),
        "high": (2.0,),
        "most_outside": 0.5,
    }
    return Stem(**fields | changes)  # type: ignore[arg-type]


LEFT = np.array([[[[1.0, 0.5], [-1.0, 0.0]]]], dtype=np.float32)
"""A kernel that is not its own mirror image."""


def kernels(*each: NDArray[np.float32], after: onnx.NodeProto = RELU) -> bytes:
    """A public part from images [1, 16, 16] to one map [8, 8] for each kernel."""
    made = model(CONV, after, output=(1, len(each), 8, 8))
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.concatenate(each), "kernel"))
    return bytes(made.SerializeToString())


def by_hand(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What that stem makes of images [count, 1, 16, 16], from 0 to 1."""
    rows = images.astype(np.float64) / 255
    sums = rows[..., ::2, ::2] + rows[..., ::2, 1::2] - 0.5 * (rows[..., 1::2, ::2] + rows[..., 1::2, 1::2])
    return np.maximum(sums, 0) / 2


def _external() -> ModelProto:
    made = model(CONV, RELU)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "pyproject.toml"
    return made


def _loop() -> ModelProto:
    inner = helper.make_graph([], "inner", [], [])
    return model(CONV, helper.make_node("If", ["sums"], ["out"], then_branch=inner, else_branch=inner))


def _function() -> ModelProto:
    made = model(CONV, RELU)
    made.functions.append(helper.make_function("own", "Own", ["x"], ["y"], [], []))
    return made


def polyglot() -> bytes:
    """A file that begins as those of onnxruntime's own format do; protobuf reads a name of one byte, a field that it skips, and a model."""
    skipped = b"RTM" + bytes(ord("T") - 1)  # field 10
    return b"\x08\x0a\x12\x01O" + skipped + model(CONV, RELU).SerializeToString()


def _named_as_another_format() -> ModelProto:
    made = model(CONV, RELU)
    made.producer_name = "ORTM"
    return made


def _node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def ints(name: str, *values: int) -> onnx.NodeProto:
    """A constant."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype=np.int64)))


INTEGERS = _node("Cast", "image", "integers", to=TensorProto.INT64)
TRAPPING = (
    INTEGERS,
    ints("least", -(2**63)),
    ints("minus", -1),
    _node("Mul", "integers least", "large"),
    _node("Mul", "integers minus", "one"),
)
"""-2^63 and -1, for an image of ones."""


def _sides_of_the_image(output: str) -> tuple[onnx.NodeProto, ...]:
    return (
        INTEGERS,
        ints("flat", -1),
        _node("Reshape", "integers flat", "line"),
        ints("start", 0),
        ints("end", 4),
        _node("Slice", "line start end", "sides"),
        _node("ConstantOfShape", "sides", output),
    )


def out_of_range() -> bytes:
    """A file that reads row 1 of 1 for an image of ones, and row 0 for a black one."""
    return model(INTEGERS, _node("Gather", "kernel integers", "rows"), CONV, RELU).SerializeToString()


BAD: dict[str, Callable[[], ModelProto]] = {
    "external data": _external,
    "branches or loops": _loop,
    "defines functions": _function,
    "onnxruntime's own format": _named_as_another_format,
    "only ordinary arithmetic": lambda: model(CONV, helper.make_node("Relu", ["sums"], ["out"], domain="ai.onnx.ml")),
    ":RandomNormalLike": lambda: model(CONV, _node("RandomNormalLike", "sums", "out")),
    ":NonZero": lambda: model(CONV, _node("NonZero", "sums", "places"), RELU),
    "is of opset 7": lambda: model(CONV, RELU, opset=7),
    "1x1x8x8 is wanted": lambda: model(CONV, RELU, output=(1, 1, 4, 16)),
    "is not valid": lambda: model(CONV, _node("Relu", "nothing", "out")),
    "of unknown size": lambda: model(CONV, RELU, *_sides_of_the_image("huge")),
    "does not follow": lambda: model(*_sides_of_the_image("out")),
    "group below 1": lambda: model(
        helper.make_node("Conv", ["image", "kernel"], ["sums"], strides=[2, 2], group=0), RELU
    ),
    "at most 1073741824": lambda: model(
        CONV,
        RELU,
        ints("sides", 1 << 13, 1 << 13),
        *[_node("ConstantOfShape", "sides", f"large{i}") for i in range(4)],
    ),
    "multiply-adds": lambda: model(
        CONV,
        RELU,
        ints("sides", 1 << 12, 1 << 13),
        ints("others", 1 << 13, 1 << 12),
        _node("ConstantOfShape", "sides", "one"),
        _node("ConstantOfShape", "others", "other"),
        _node("MatMul", "one other", "product"),
    ),
    "divides integers (Div)": lambda: model(CONV, RELU, *TRAPPING, _node("Div", "large one", "ratio")),
    "divides integers (Mod)": lambda: model(CONV, RELU, *TRAPPING, _node("Mod", "large minus", "rest")),
    "not of numbers": lambda: model(CONV, RELU, helper.make_node("Constant", [], ["text"], value_string="a")),
}
"""Files that a client must refuse, by what it says of them."""
