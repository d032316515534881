"""Public parts for tests: a small ONNX file, and files that a client must refuse."""

from collections.abc import Callable

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


BAD: dict[str, Callable[[], ModelProto]] = {
    "external data": _external,
    "branches or loops": _loop,
    "defines functions": _function,
    "only the arithmetic": lambda: model(CONV, helper.make_node("Relu", ["sums"], ["out"], domain="ai.onnx.ml")),
    ":RandomNormalLike": lambda: model(CONV, helper.make_node("RandomNormalLike", ["sums"], ["out"])),
    "is of opset 7": lambda: model(CONV, RELU, opset=7),
    "1x1x8x8 is wanted": lambda: model(CONV, RELU, output=(1, 1, 4, 16)),
    "is not valid": lambda: model(CONV, helper.make_node("Relu", ["nothing"], ["out"])),
    "of unknown size": lambda: model(CONV, helper.make_node("NonZero", ["sums"], ["places"]), RELU),
    "at most": lambda: model(
        CONV,
        RELU,
        helper.make_node("Constant", [], ["sides"], value_ints=[1 << 14, 1 << 14]),
        helper.make_node("ConstantOfShape", ["sides"], ["huge"]),
    ),
}
"""Files that a client must refuse, by what it says of them."""
