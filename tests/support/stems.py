"""Public parts for tests: a small ONNX file, and files that a client must refuse."""

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
