"""An ONNX file as a module of torch, which models.compiler.trace reads like any other.

The onnx package reads and checks the file. What depends on constants alone (shapes, weights that are computed) is computed by its reference
evaluator, and so is what ``convert`` holds the module against: an operator that is read wrongly cannot get through.

A file may state a size of the batch, mostly 1. A first side of that size stands for the batch, in the input and in constant shapes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ciphershift.errors import ConfigurationError, NotEquivalentError, UnreadableModuleError, UnsupportedLayerError
from ciphershift.he_layers.layers import Shape
from ciphershift.models.compiler.onnx_operators import OPERATORS, PLAIN, numbers, split
from ciphershift.models.compiler.step import UnsupportedStepError

SUFFIX = ".onnx"
DOMAINS = ("", "ai.onnx")
ML = "ai.onnx.ml"
FLAT = ("ZipMap",)
"""Operators of ML that only give results another form: what they read is the result."""
SIZES = ("Shape", "Reshape", "Expand", "Split")
TOLERANCE = 1e-4
"""Greatest difference between module and reference, beside the greatest value: both compute in single precision."""


class OnnxModule(nn.Module):
    """Runs the nodes of a graph one after the other; each is a part with the node's name, so that findings name it.

    Attributes:
        input_shape: of a sample, where the file states it.
    """

    def __init__(self, model: Any) -> None:
        """Reads a model. Raises UnreadableModuleError or UnsupportedLayerError."""
        super().__init__()
        self.model = model
        self._constants: dict[str, Any] = {}
        self._floats: dict[str, str] = {}
        graph = model.graph
        (given, *others) = _inputs(graph)
        if others:
            raise UnreadableModuleError(
                f"the file has {1 + len(others)} inputs ({given.name}, {', '.join(o.name for o in others)}); give the network one"
            )
        sides = [d.dim_value if d.HasField("dim_value") else None for d in given.type.tensor_type.shape.dim]
        self._input, self._batch = given.name, sides[0] if sides else None
        self.input_shape: Shape | None = tuple(map(int, sides[1:])) if sides and all(sides[1:]) else None  # type: ignore[arg-type]
        self.outputs = _outputs(model)
        self._parts: list[_Node] = []
        needed = _needed(graph, set(self.outputs.values()))
        if refused := [f"{_place(n)}: {n.op_type} is not supported; {_cure(n)}" for n in needed if _unknown(n)]:
            raise UnsupportedLayerError("this network cannot be converted: " + "; ".join(refused))
        self._needed = needed
        self._read_constants(model, needed)
        for node in needed:
            if node.output[0] not in self._constants:
                part = _Node(node)
                self.add_module(_unique(_place(node), self._modules), part)
                self._parts.append(part)

    def _read_constants(self, model: Any, needed: list[Any]) -> None:
        """Initializers, and what is computed from them alone; those of floating point become buffers."""
        from onnx import numpy_helper

        self._constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        for node in needed:
            if all(name in self._constants for name in node.input if name):
                found = _computed(node, [self._constants[name] for name in node.input if name], model)
                self._constants |= dict(zip(node.output, found, strict=False))
        read = {name for node in needed for name in node.input}
        for name, value in self._constants.items():
            if name in read and np.asarray(value).dtype.kind == "f" and np.asarray(value).ndim:
                self._floats[name] = _unique("constant_" + _word(name), self._buffers)
                self.register_buffer(self._floats[name], torch.tensor(np.asarray(value, dtype=np.float32)))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """[B, ...] -> what the file's outputs are, by name if there are several."""
        values: dict[str, Any] = dict(self._constants)
        values[self._input] = x
        weights = {name: self.get_buffer(buffer) for name, buffer in self._floats.items()}
        sizes = (len(x), self._batch)
        for part in self._parts:
            values |= part(values, weights, sizes, self.model)
        found = {name: _of_two_classes(values, value, self._parts) for name, value in self.outputs.items()}
        return found if len(found) > 1 else next(iter(found.values()))

    def reference(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """What onnx's reference evaluator computes for samples [count, ...], each output."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        model = type(self.model)()
        model.CopyFrom(self.model)
        del (
            model.graph.node[:],
            model.graph.output[:],
        )  # without what only makes labels of the answer, which it cannot compute
        model.graph.node.extend(self._needed)
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in self.outputs.values())
        evaluator = ReferenceEvaluator(model)
        step = self._batch or len(samples)
        with np.errstate(all="ignore"):  # its sigmoid overflows on the side that it does not take
            rows = [
                evaluator.run(list(self.outputs.values()), {self._input: samples[start : start + step]})
                for start in range(0, len(samples) - step + 1, step)
            ]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def require_same(self, samples: Tensor) -> None:
        """Holds the module against the reference on samples.

        Raises:
            NotEquivalentError: they differ.
        """
        samples = samples[: max(1, len(samples) // (self._batch or 1)) * (self._batch or 1)]
        with torch.no_grad():
            found = self(samples)
        mine = list(found.values()) if isinstance(found, dict) else [found]
        for name, expected, result in zip(self.outputs, self.reference(samples.numpy()), mine, strict=True):
            worst = float(np.abs(result.numpy() - expected).max()) if result.shape == expected.shape else float("inf")
            if not worst <= TOLERANCE * max(float(np.abs(expected).max()), 1e-6):
                raise NotEquivalentError(
                    f"the output {name!r} of the file differs by {worst:.3g} from what onnx's reference computes; this is a fault of the "
                    "reading, not of the network: report it, and export the network in another opset meanwhile"
                )


class _Node(nn.Module):
    """One node."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        from onnx import helper

        self.node = node
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in self.attributes.items()}

    def forward(
        self, values: dict[str, Any], weights: dict[str, Tensor], sizes: tuple[int, int | None], model: Any
    ) -> dict[str, Any]:
        """The results by name, from all values so far; ``sizes`` of the batch: here, and in the file."""
        known = values if self.node.op_type in PLAIN else values | weights
        given = [known[name] if name else None for name in self.node.input]
        if not any(isinstance(value, Tensor) for value in given):
            found = _computed(self.node, [v for v in given if v is not None], model)
        else:
            try:
                found = self._run(given, sizes)
            except UnsupportedStepError as error:
                error.place = _place(self.node)
                raise
        return dict(zip(self.node.output, found, strict=False))

    def _run(self, given: list[Any], sizes: tuple[int, int | None]) -> list[Any]:
        kind, a = self.node.op_type, self.attributes
        here, stated = sizes
        if kind == "Shape":
            return [np.array(given[0].shape[a.get("start", 0) : a.get("end")], dtype=np.int64)]
        if kind == "Split":
            return list(split(a, len(self.node.output), *given))
        if kind in ("Reshape", "Expand"):
            x, shape = given[0], numbers(given[1])
            if stated and shape and shape[0] == stated and x.shape[0] == here:
                shape[0] = here
            if kind == "Expand":
                return [torch.broadcast_to(x, np.broadcast_shapes(tuple(x.shape), tuple(shape)))]
            if not a.get("allowzero", 0):
                shape = [x.shape[i] if side == 0 else side for i, side in enumerate(shape)]
            return [x.reshape(shape)]
        given = [v.item() if isinstance(v, np.ndarray) and not v.ndim and v.dtype.kind == "f" else v for v in given]
        given = [torch.tensor(v) if isinstance(v, np.ndarray) and v.dtype.kind == "b" else v for v in given]
        return [OPERATORS[kind](a, *given)]


def _of_two_classes(values: dict[str, Any], name: str, parts: list[_Node]) -> Any:
    """An output; where it is 1 - sigmoid(x) beside sigmoid(x), as scikit-learn's networks have it, as the softmax of -x/2 and x/2.

    That is the same, and a softmax at the end is the client's, while two functions of x would be look-ups.
    """
    made = {output: part.node for part in parts for output in part.node.output}
    joined = made.get(name)
    if joined is None or joined.op_type != "Concat" or len(joined.input) != 2:
        return values[name]
    other, chance = (made.get(source) for source in joined.input)
    is_chance = chance is not None and chance.op_type == "Sigmoid"
    is_rest = other is not None and other.op_type == "Sub" and other.input[1] == joined.input[1]
    if not (is_chance and is_rest and chance and other and np.all(np.asarray(values[other.input[0]]) == 1)):
        return values[name]
    logit = values[chance.input[0]]
    if logit.dim() != 2 or logit.shape[1] != 1:
        return values[name]
    return torch.softmax(torch.cat([-0.5 * logit, 0.5 * logit], dim=1), dim=1)


def load_onnx(path: Path) -> OnnxModule:
    """Reads an ONNX file, with its weights in it or beside it.

    Raises:
        ConfigurationError: the package onnx is not installed.
        UnreadableModuleError: the file cannot be read, or has several inputs.
        UnsupportedLayerError: an operator cannot be read; all such operators are named.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise ConfigurationError(
            "onnx is not installed, which reads ONNX files: pip install 'ciphershift[models]'"
        ) from None
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (
        Exception
    ) as error:  # onnx and protobuf raise many kinds, all of which mean that the file is not one of theirs
        text = " ".join(str(error).split())[:200]
        raise UnreadableModuleError(f"{path} cannot be read as ONNX ({text}); export the network again") from error
    return OnnxModule(model).eval()


def as_module(module: nn.Module | Path | str) -> nn.Module:
    """The module itself, or that of an ONNX file. Raises as load_onnx."""
    return module if isinstance(module, nn.Module) else load_onnx(Path(module))


def _inputs(graph: Any) -> list[Any]:
    """Inputs that are no weights."""
    weights = {initializer.name for initializer in graph.initializer}
    return [given for given in graph.input if given.name not in weights]


def _outputs(model: Any) -> dict[str, str]:
    """Names of the values that are the outputs, by the outputs' names; labels, which are the greatest logit's, are left to the client."""
    from onnx import TensorProto

    made = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for output in model.graph.output:
        name = output.name
        while name in made and made[name].op_type in FLAT:
            name = made[name].input[0]
        is_number = not output.type.HasField("tensor_type") or output.type.tensor_type.elem_type in (
            TensorProto.FLOAT,
            TensorProto.FLOAT16,
            TensorProto.DOUBLE,
        )
        if is_number:
            found[output.name] = name
    if not found:
        raise UnreadableModuleError(
            "no output of the file is of floating point; export the logits or probabilities, too"
        )
    return found


def _needed(graph: Any, outputs: set[str]) -> list[Any]:
    """Nodes that the outputs are computed by, in order."""
    found = []
    for node in reversed(graph.node):
        if outputs & set(node.output):
            found.append(node)
            outputs |= set(node.input)
    return found[::-1]


def _unknown(node: Any) -> bool:
    kind = str(node.op_type)
    if node.domain == ML:
        return kind != "Scaler"
    return node.domain not in DOMAINS or kind not in {*OPERATORS, *SIZES, *CONSTANT}


CONSTANT = ("Constant", "ConstantOfShape", "Range", "EyeLike", "DequantizeLinear")
"""Operators that have readers only where they depend on constants alone."""


def _cure(node: Any) -> str:
    if node.domain not in DOMAINS:
        return f"it is of the domain {node.domain}: export the network with the operators of ai.onnx alone"
    return {
        **dict.fromkeys(("RNN", "LSTM", "GRU"), "convert the module of torch that the file was exported from"),
        "GroupNormalization": "use a batch norm",
    }.get(node.op_type, "see docs/networks.md for the operations that are")


def _computed(node: Any, inputs: list[Any], model: Any) -> list[Any]:
    """What a node gives for constants, by onnx's reference evaluator."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.asarray(v).dtype), None)
        for name, v in zip(names, inputs, strict=True)
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", infos, results)
    one = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(one).run(None, dict(zip(names, map(np.asarray, inputs), strict=True))))


def _place(node: Any) -> str:
    return str(node.name or node.output[0])


def _word(name: str) -> str:
    return name.replace(".", "_")


def _unique(wish: str, taken: Any) -> str:
    wish = _word(wish) or "node"
    return next(name for name in _numbered(wish) if name not in taken)


def _numbered(wish: str) -> Iterator[str]:
    yield wish
    number = 1
    while True:
        yield f"{wish}_{number}"
        number += 1
