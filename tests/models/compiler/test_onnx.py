"""ONNX files become networks that compute what onnx's reference computes, whoever wrote them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.errors import NotEquivalentError, UnreadableModuleError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.models.compiler import onnx_graph
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.models.compiler.onnx_graph import OnnxModule, load_onnx
from ciphershift.models.compiler.onnx_operators import OPERATORS
from ciphershift.models.compiler.trace import quiet
from ciphershift.models.cost_report import check
from ciphershift.models.user_module import input_shape, load_module
from ciphershift.protocol.outputs import OUTPUTS

RNG = np.random.default_rng(0)
SAMPLES = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Branches, a gate, a flattened end; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.conv = nn.Conv2d(4, 6, 3)
        self.kind, self.size = nn.Linear(6, 3), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.silu(self.conv(self.body(x)))
        first, second = x.chunk(2, 1)
        x = torch.cat([second, first], 1)
        return self.kind(x.mean((2, 3))).softmax(1), self.size(x.reshape(x.size(0), -1))


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn about each other
@pytest.mark.parametrize("of_any_size", [True, False])
def test_a_file_from_pytorch_is_the_module(of_any_size: bool, tmp_path: Path) -> None:
    module, path = Net().eval(), tmp_path / "net.onnx"
    with quiet():
        torch.onnx.export(
            module,
            (torch.zeros(1 if not of_any_size else 2, 1, 8, 8),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")},) if of_any_size else None,
            output_names=["kind", "size"],
            verbose=False,
        )
    network = before_rounding(path, SAMPLES, levels=255, max_outside=2e-3).network
    assert [(part.name, part.shape, part.function) for part in network.parts] == [
        ("kind", (3,), "softmax"),
        ("size", (1,), None),
    ]
    with torch.no_grad():
        found, (kind, size) = network(SAMPLES), module(SAMPLES)
    assert float((found[:, :3].softmax(1) - kind).abs().mean()) < 0.01
    assert float((found[:, 3:] - size).abs().mean()) < 0.1 * float(size.std())
    assert input_shape(load_module(str(path)), None) == (1, 8, 8)
    report = check(path, (1, 8, 8), params="TOY_N128")
    assert report.cost is not None
    assert any("onv" in step.place for step in report.steps)


@pytest.mark.filterwarnings("ignore")  # it stops after 200 steps
@pytest.mark.parametrize("classes", [2, 3])
def test_a_network_of_scikit_learn_takes_raw_values(classes: int, tmp_path: Path) -> None:
    """A scaler and an MLPClassifier through skl2onnx: labels are left out, probabilities are the client's."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(3)
    raw = np.stack([rng.normal(50, 15, 300), rng.normal(0, 3, 300), rng.random(300)], axis=1).astype(np.float32)
    labels = ((raw[:, 0] > 50).astype(int) + (raw[:, 1] > 0) * (classes > 2)).astype(int)
    model = make_pipeline(StandardScaler(), MLPClassifier((16,), solver="lbfgs", random_state=0)).fit(raw, labels)
    path = tmp_path / "mlp.onnx"
    path.write_bytes(to_onnx(model, raw[:1]).SerializeToString())
    inputs = Inputs(encoding=fit_encoding(raw))
    network = before_rounding(path, raw, inputs=inputs, levels=255, max_outside=2e-3).network
    with torch.no_grad():
        logits = network(torch.tensor(inputs.bytes_of(raw)).float() / 255).double().numpy()
    found = OUTPUTS["softmax"](logits)
    assert (found.argmax(1) == model.predict(raw)).mean() > 0.97
    assert np.abs(found - model.predict_proba(raw)).mean() < 0.02
    network = convert(path, raw, inputs=inputs).eval()
    program = export(network, name="p", version="1", params="FAST_N512", classes=tuple("abc"[:classes]))
    assert program.output.function == "softmax"
    assert simulate.plain(program, inputs.bytes_of(raw)).shape == (300, classes)


IMAGE = (2, 2, 6, 6)
X, Y = "x", "y"


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(0.2, 1.2, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


CASES: dict[str, list[tuple[dict[str, Any], tuple[Any, ...], tuple[int, ...]]]] = {
    "Conv": [
        ({"pads": [1, 0, 2, 1], "strides": [2, 1]}, (X, floats(4, 2, 3, 3), floats(4)), IMAGE),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2], "group": 2}, (X, floats(4, 1, 3, 2)), IMAGE),
        ({"dilations": [2]}, (X, floats(3, 2, 3)), (2, 2, 9)),
    ],
    "ConvTranspose": [({"strides": [2, 2], "output_padding": [1, 1]}, (X, floats(2, 3, 3, 3), floats(3)), IMAGE)],
    "Gemm": [
        ({"transB": 1, "alpha": 0.5, "beta": 2.0}, (X, floats(4, 6), floats(4)), (2, 6)),
        ({}, (X, floats(6, 4), floats(1, 4)), (2, 6)),
    ],
    "MatMul": [({}, (X, floats(6, 4)), (2, 6)), ({}, (X, floats(6, 4)), IMAGE)],
    "BatchNormalization": [({"epsilon": 1e-3}, (X, *(floats(2) for _ in range(4))), IMAGE)],
    "LayerNormalization": [({}, (X, floats(6), floats(6)), (2, 6))],
    "InstanceNormalization": [({}, (X, floats(2), floats(2)), IMAGE)],
    "MaxPool": [
        ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (X,), IMAGE),
        ({"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}, (X,), IMAGE),
        ({"kernel_shape": [2], "ceil_mode": 1, "strides": [2]}, (X,), (2, 2, 7)),
    ],
    "AveragePool": [
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, (X,), IMAGE),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, (X,), IMAGE),
    ],
    "GlobalAveragePool": [({}, (X,), IMAGE)],
    "GlobalMaxPool": [({}, (X,), IMAGE)],
    "ReduceMean": [({"keepdims": 0}, (X, ints(2, 3)), IMAGE)],
    "ReduceSum": [({}, (X, ints(-1)), IMAGE)],
    "Flatten": [({}, (X,), IMAGE)],
    "Transpose": [({"perm": [0, 2, 3, 1]}, (X,), IMAGE)],
    "Concat": [({"axis": 1}, (X, X), IMAGE)],
    "Slice": [
        ({}, (X, ints(1), ints(100), ints(2), ints(2)), IMAGE),
        ({}, (X, ints(-1), ints(-100), ints(3), ints(-2)), IMAGE),
    ],
    "Pad": [
        ({}, (X, ints(0, 0, 1, 2, 0, 0, 0, 1)), IMAGE),
        ({"mode": "reflect"}, (X, ints(1, 2, 0, 1), None, ints(2, 3)), IMAGE),
        ({"mode": "edge"}, (X, ints(0, 0, 1, 2, 0, 0, 0, 1)), IMAGE),
    ],
    "Gather": [({"axis": 2}, (X, ints(3, 0, -1)), IMAGE), ({"axis": 3}, (X, np.int64(2)), IMAGE)],
    "Squeeze": [({}, (X, ints(3)), (2, 2, 6, 1))],
    "Unsqueeze": [({}, (X, ints(-1)), (2, 6))],
    "Tile": [({}, (X, ints(1, 2, 1, 2)), IMAGE)],
    "Resize": [
        (
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            (X, None, np.array([1, 1, 2, 2], np.float32)),
            IMAGE,
        ),
        (
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            (X, None, None, ints(2, 2, 12, 6)),
            IMAGE,
        ),
    ],
    "DepthToSpace": [({"blocksize": 2, "mode": m}, (X,), (2, 8, 3, 3)) for m in ("DCR", "CRD")],
    "SpaceToDepth": [({"blocksize": 2}, (X,), IMAGE)],
    "Clip": [({}, (X, np.float32(0.3), np.float32(0.7)), IMAGE), ({}, (X, None, np.float32(0.5)), IMAGE)],
    "PRelu": [({}, (X, floats(2, 1, 1)), IMAGE)],
    "Pow": [({}, (X, np.float32(3.0)), IMAGE)],
    "Where": [({}, (np.array([True] * 3 + [False] * 3), X, floats(1)), IMAGE)],
    "Mean": [({}, (X, X, floats(1)), IMAGE)],
    "Scaler": [({"offset": [0.1] * 6, "scale": [2.0, 3.0, 1.0, 0.5, 0.1, 7.0]}, (X,), (2, 6))],
    "Shrink": [({"lambd": 0.4, "bias": 0.1}, (X,), IMAGE)],
    "Cast": [({"to": TensorProto.FLOAT}, (X,), IMAGE)],
    "CastLike": [({}, (X, floats(1)), IMAGE)],
    "Dropout": [({}, (X,), IMAGE)],
    **{name: [({}, (X, floats(2, 1, 1)), IMAGE)] for name in ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min")},
    **{name: [({"axis": 1}, (X,), (2, 6))] for name in ("Softmax", "LogSoftmax")},
}
LOGICAL = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or")
"""Shown below: they give no numbers."""
OLD = ("Upsample",)
"""Last in opset 9."""


def one_node(kind: str, attributes: dict[str, Any], inputs: tuple[Any, ...], shape: tuple[int, ...]) -> onnx.ModelProto:
    names = [value if isinstance(value, str) else "" if value is None else f"c{i}" for i, value in enumerate(inputs)]
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names, inputs, strict=True) if n and n != X]
    domain = "ai.onnx.ml" if kind == "Scaler" else ""
    node = helper.make_node(kind, names, [Y], name=f"the_{kind}", domain=domain, **attributes)
    given = helper.make_tensor_value_info(X, TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info(Y, TensorProto.FLOAT, ["n"] * len(shape))
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "g", [given], [made], weights), opset_imports=opsets)


@pytest.mark.parametrize("kind", sorted({*OPERATORS} - {*LOGICAL, *OLD}))
def test_every_operator_is_that_of_the_reference(kind: str) -> None:
    for attributes, inputs, shape in CASES.get(kind, [({}, (X,), IMAGE)]):
        module = OnnxModule(one_node(kind, attributes, inputs, shape)).eval()
        low = 1.1 if kind == "Acosh" else 0.05
        module.require_same(torch.tensor(RNG.uniform(low, low + 0.9, shape).astype(np.float32)))


HEADER = '<ir_version: 10, opset_import: ["" : 20]> g'
CONSTANTS = "float a = {0.3}, float b = {0.6}, int64 i = {0}, int64[3] j = {1, 6, 1}, int64[3] k = {1, 6, 4}"
CONDITIONS = """(float[2, 6] x) => (float[n, m] y) <%s> {
    c = Greater(x, a)
    d = Less(x, b)
    e = And(c, d)
    f = GreaterOrEqual(x, a)
    g = Not(f)
    h = Or(e, g)
    y = Where(h, x, b)
}"""
OF_ONE = """(float[1, 6] x) => (float[n, m, o] y) <%s> {
    e = Reshape(x, j)
    f = Expand(e, k)
    p, q = Split<axis = 2, num_outputs = 2>(f)
    s = Shape(p)
    r = Reshape(q, s)
    y = Sub(r, p)
}"""


@pytest.mark.parametrize("text", [CONDITIONS, OF_ONE])
def test_sizes_and_conditions(text: str) -> None:
    """The second file states a batch of one, also in the shapes that it reshapes to."""
    model = onnx.parser.parse_model(HEADER + text % CONSTANTS)
    OnnxModule(model).require_same(torch.rand(4, 6, generator=torch.Generator().manual_seed(0)))


def test_an_operator_that_is_read_wrongly_cannot_get_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(one_node("Sigmoid", {}, (X,), (1, 6)).SerializeToString())
    monkeypatch.setitem(OPERATORS, "Sigmoid", lambda a, x: x.tanh())
    with pytest.raises(NotEquivalentError, match=r"output 'y' .* differs by"):
        load_onnx(path).require_same(torch.rand(4, 6))


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (
            lambda m: m.graph.node[0].__setattr__("op_type", "LSTM"),
            UnsupportedLayerError,
            "the_Relu: LSTM is not supported; convert the module of torch",
        ),
        (
            lambda m: m.graph.node[0].__setattr__("domain", "com.microsoft"),
            UnsupportedLayerError,
            "of the domain com.microsoft",
        ),
        (
            lambda m: m.graph.input.append(helper.make_tensor_value_info("z", 1, (1, 6))),
            UnreadableModuleError,
            "2 inputs",
        ),
        (
            lambda m: m.graph.output[0].type.tensor_type.__setattr__("elem_type", 7),
            UnreadableModuleError,
            "floating point",
        ),
    ],
)
def test_what_a_file_cannot_be_says_why(change: Callable[[Any], None], error: type[Exception], what: str) -> None:
    model = one_node("Relu", {}, (X,), (1, 6))
    change(model)
    with pytest.raises(error, match=what):
        OnnxModule(model)


def test_a_step_that_cannot_be_evaluated_is_a_finding_with_the_nodes_name(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    scales = np.array([1, 1, 2, 2], np.float32)
    path.write_bytes(one_node("Resize", {"mode": "linear"}, (X, None, scales), IMAGE).SerializeToString())
    (finding,) = check(path, IMAGE[1:], params="TOY_N128").findings
    assert (finding.place, finding.problem) == ("the_Resize", "interpolates")
    (tmp_path / "broken.onnx").write_bytes(b"no onnx")
    with pytest.raises(UnreadableModuleError, match="cannot be read as ONNX"):
        load_onnx(tmp_path / "broken.onnx")
    assert onnx_graph.as_module(nn.Identity()) is not None
