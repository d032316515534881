"""Read an nn.Module with torch.fx: every step becomes an operation (models.compiler.ir) or a finding with what to use instead."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from ciphershift.he_layers.layers import Shape
from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir

TORCH = Path(torch.__file__).parent
ACTIVATION = "use nn.ReLU, nn.ReLU6 or nn.Hardtanh: each is one look-up"
NORM = "use nn.BatchNorm2d (nn.BatchNorm1d after flatten): its statistics are constants once it is trained"
PRODUCT = "there is no product of two encrypted values; use convolutions, additions and concatenations"
INSTEAD = {
    "gelu silu mish elu selu celu leaky_relu prelu rrelu sigmoid tanh softplus softsign hardswish hardsigmoid logsigmoid": ACTIVATION,
    "layer_norm group_norm instance_norm instance_norm2d rms_norm local_response_norm": NORM,
    "softmax log_softmax softmax2d": "leave it out: the client gets the logits and can apply it itself",
    "mul matmul bmm einsum multihead_attention scaled_dot_product_attention lstm gru embedding truediv": PRODUCT,
    "sub": "negate the weights of the convolution before it and add",
    "conv1d conv3d conv_transpose2d conv_transpose1d upsample interpolate pixel_shuffle": "use nn.Conv2d, with a stride for smaller maps",
    "view reshape transpose permute": "flatten with torch.flatten(x, 1), shuffle channels with nn.ChannelShuffle",
    "getitem chunk split": "give each branch a convolution of its own instead of a part of the channels",
    "adaptive_max_pool2d": "use nn.MaxPool2d with a kernel of the size that is left",
}


class UnsupportedStepError(Exception):
    """A step cannot be an operation; says what is wrong and what to use instead. Stays inside this module."""

    def __init__(self, problem: str, instead: str) -> None:
        super().__init__(problem)
        self.problem, self.instead = problem, instead


def read(module: nn.Module, input_shape: Shape) -> ir.TraceResult:
    """The module's operations on images of ``input_shape`` (C, H, W), in evaluation mode, and a finding for each unsupported step.

    The module's own weights are copied, not changed. A module that cannot be traced or run gives one finding that says why.
    """
    was_training = module.training
    module.eval()
    try:
        tracer = fx.Tracer()
        tracer.record_stack_traces = True
        graph = fx.GraphModule(module, tracer.trace(module))
        with torch.no_grad():
            ShapeProp(graph).propagate(torch.zeros(2, *input_shape))
        return _Reader(graph, input_shape).read()
    except Exception as error:  # user's code runs here: whatever it raises is what we have to tell
        instead = "make it run on such an image, without branches or loops that depend on values"
        return ir.TraceResult(
            findings=[ir.Finding(place="the module", problem=f"cannot be traced: {error}", instead=instead)]
        )
    finally:
        module.train(was_training)


class _Reader:
    """Goes through the graph once."""

    def __init__(self, graph: fx.GraphModule, input_shape: Shape) -> None:
        self.graph, self.input_shape = graph, input_shape
        self.traced = ir.TraceResult()
        self.names: dict[fx.Node, str] = {}

    def read(self) -> ir.TraceResult:
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                if self.names:
                    self._note(node, "is a second input", "give the network one image")
                self.names[node] = IMAGE
            elif node.op == "output":
                self._output(node)
            elif _is_value(node):
                self._step(node)
        return self.traced

    def _step(self, node: fx.Node) -> None:
        self.names[node] = node.name
        try:
            operations = self._operations(node)
        except UnsupportedStepError as error:
            self._note(node, error.problem, error.instead)
            inputs = tuple(self.names[n] for n in node.all_input_nodes if n in self.names) or (IMAGE,)
            operations = (ir.Identity(name=node.name, place=_place(node), inputs=inputs[:1], shape=_shape(node)),)
        self.traced.operations.extend(operations)

    def _note(self, node: fx.Node, problem: str, instead: str) -> None:
        self.traced.findings.append(ir.Finding(place=_place(node), problem=problem, instead=instead))

    def _output(self, node: fx.Node) -> None:
        value = node.args[0]
        if not isinstance(value, fx.Node) or value not in self.names:
            self._note(node, "returns something else than one tensor", "return the logits alone")
        elif self.traced.operations and self.traced.operations[-1].name != self.names[value]:
            self._note(node, "does not return its last step", "remove what comes after the logits")

    def _operations(self, node: fx.Node) -> tuple[ir.Operation, ...]:
        sources = [n for n in node.all_input_nodes if _is_value(n) or n.op == "placeholder"]
        base: dict[str, Any] = {
            "name": node.name,
            "place": _place(node),
            "inputs": tuple(self.names[n] for n in sources),
            "shape": _shape(node),
        }
        shape_in = _shape(sources[0]) if sources else ()
        if node.op == "call_module":
            module = self.graph.get_submodule(str(node.target))
            reader = MODULES.get(type(module))
            if reader is None:
                raise _unsupported(type(module).__name__)
            return (reader(module, base, shape_in),)
        name = node.target if isinstance(node.target, str) else node.target.__name__
        name = name.strip("_")
        if name == "mean":
            return _global_mean(node, base, shape_in)
        reader = FUNCTIONS.get(name)
        if node.op == "get_attr" or reader is None:
            raise _unsupported(name)
        if name in ADDITIONS and len(sources) != 2:
            raise UnsupportedStepError("adds a constant", "put it into the bias of the layer before")
        return (reader(_as_module(name, node), base, shape_in),)


def _conv(m: nn.Conv2d, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if m.dilation != (1, 1):
        raise UnsupportedStepError(f"has dilation {m.dilation}", "use dilation 1, with a larger kernel or a stride")
    if m.padding_mode != "zeros":
        raise UnsupportedStepError(f"pads with {m.padding_mode!r}", "use padding_mode='zeros'")
    if isinstance(m.padding, str):
        sides = [0 if m.padding == "valid" else side - 1 for side in m.kernel_size]
        if any(side % 2 for side in sides):
            raise UnsupportedStepError(
                "pads one side more than the other", "use a kernel of odd size or padding='valid'"
            )
        padding = (sides[0] // 2, sides[1] // 2)
    else:
        padding = _pair(m.padding)
    return ir.Conv2d(
        **base,
        weight=m.weight.detach().clone(),
        bias=_bias(m.bias, m.out_channels),
        stride=_pair(m.stride),
        padding=padding,
        groups=m.groups,
    )


def _dense(m: nn.Linear, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if len(shape) != 1:
        raise UnsupportedStepError(f"is applied to {shape}", "flatten with torch.flatten(x, 1) before it")
    return ir.Linear(**base, weight=m.weight.detach().clone(), bias=_bias(m.bias, m.out_features))


def _norm(m: nn.BatchNorm2d | nn.BatchNorm1d, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if m.running_mean is None or m.running_var is None:
        raise UnsupportedStepError("has no running statistics", "use track_running_stats=True")
    scale = (m.running_var + m.eps).rsqrt()
    scale = scale if m.weight is None else scale * m.weight.detach()
    shift = -m.running_mean * scale + (0 if m.bias is None else m.bias.detach())
    return ir.Affine(**base, scale=scale.clone(), shift=shift.clone())


def _hardtanh(m: nn.Hardtanh, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if not m.min_val <= 0 < m.max_val:
        raise UnsupportedStepError(f"clips to {m.min_val} .. {m.max_val}", "use a range that holds zero")
    return ir.ReLU(**base, low=float(m.min_val), high=float(m.max_val))


def _max_pool(m: nn.MaxPool2d, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if _pair(m.dilation) != (1, 1):
        raise UnsupportedStepError(f"has dilation {m.dilation}", "use dilation 1")
    return ir.MaxPool2d(**base, **_window(m, base["shape"], shape))


def _avg_pool(m: nn.AvgPool2d, base: dict[str, Any], shape: Shape) -> ir.Operation:
    window = _window(m, base["shape"], shape)
    if m.divisor_override is not None or (window["padding"] != (0, 0) and not m.count_include_pad):
        raise UnsupportedStepError(
            "divides by another number than the kernel's size", "use count_include_pad=True and no divisor_override"
        )
    return ir.AvgPool2d(**base, **window)


def _adaptive_pool(m: nn.AdaptiveAvgPool2d, base: dict[str, Any], shape: Shape) -> ir.Operation:
    rows, columns = base["shape"][1:]
    if shape[1] % rows or shape[2] % columns:
        raise UnsupportedStepError(
            f"averages {shape[1:]} to {rows, columns}", "choose an output size that divides the input's"
        )
    kernel = (shape[1] // rows, shape[2] // columns)
    return ir.AvgPool2d(**base, kernel=kernel, stride=kernel, padding=(0, 0))


def _global_mean(node: fx.Node, base: dict[str, Any], shape: Shape) -> tuple[ir.Operation, ...]:
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    axes = axes if isinstance(axes, tuple | list) else (axes,)
    if len(shape) != 3 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        raise UnsupportedStepError("averages over other axes than height and width", "use nn.AdaptiveAvgPool2d(1)")
    window: dict[str, Any] = {"kernel": shape[1:], "stride": shape[1:], "padding": (0, 0)}
    if len(base["shape"]) == 3:
        return (ir.AvgPool2d(**base, **window),)
    mean = base | {"name": f"{base['name']}_pool", "shape": (shape[0], 1, 1)}
    return ir.AvgPool2d(**mean, **window), ir.Flatten(**base | {"inputs": (mean["name"],)})


def _flatten(m: nn.Module, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if base["shape"] != (prod(shape),):
        raise UnsupportedStepError("reshapes", INSTEAD["view reshape transpose permute"])
    return ir.Flatten(**base)


def _join(m: nn.Module, base: dict[str, Any], shape: Shape) -> ir.Operation:
    if base["shape"][1:] != shape[1:]:
        raise UnsupportedStepError("joins along another axis than the channels", "use torch.cat(..., dim=1)")
    return ir.Concat(**base)


MODULES: dict[type[nn.Module], Callable[[Any, dict[str, Any], Shape], ir.Operation]] = {
    nn.Conv2d: _conv,
    nn.Linear: _dense,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.ReLU: lambda m, base, shape: ir.ReLU(**base, low=0.0, high=None),
    nn.ReLU6: lambda m, base, shape: ir.ReLU(**base, low=0.0, high=6.0),
    nn.Hardtanh: _hardtanh,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Flatten: _flatten,
    nn.ChannelShuffle: lambda m, base, shape: ir.ChannelShuffle(**base, groups=m.groups),
    **dict.fromkeys(
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout),
        lambda m, base, shape: ir.Identity(**base),
    ),
}
ADDITIONS = ("add", "iadd")
FUNCTIONS: dict[str, Callable[[Any, dict[str, Any], Shape], ir.Operation]] = {
    "relu": MODULES[nn.ReLU],
    "relu6": MODULES[nn.ReLU6],
    "hardtanh": _hardtanh,
    "max_pool2d": _max_pool,
    "boolean_dispatch": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    **dict.fromkeys(("flatten", "view", "reshape"), _flatten),
    **dict.fromkeys(ADDITIONS, lambda m, base, shape: ir.Add(**base)),
    **dict.fromkeys(("cat", "concat", "concatenate"), _join),
    "channel_shuffle": MODULES[nn.ChannelShuffle],
    **dict.fromkeys(
        ("dropout", "dropout2d", "contiguous", "clone", "detach"), lambda m, base, shape: ir.Identity(**base)
    ),
}


def _as_module(name: str, node: fx.Node) -> Any:
    """The module that does what a function call does, for functions with options."""
    options: dict[str, Any] = dict(node.kwargs)
    arguments: tuple[Any, ...] = node.args[1:]
    if name in ("max_pool2d", "boolean_dispatch"):
        options.pop("return_indices", None)
        return nn.MaxPool2d(*arguments, **options)
    makers = {
        "avg_pool2d": nn.AvgPool2d,
        "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
        "channel_shuffle": nn.ChannelShuffle,
    }
    if name in makers:
        return makers[name](*arguments, **options)
    if name == "hardtanh":
        return nn.Hardtanh(*arguments[:2], **{key: options[key] for key in ("min_val", "max_val") if key in options})
    return None


def _window(m: nn.MaxPool2d | nn.AvgPool2d, result: Shape, shape: Shape) -> dict[str, Any]:
    kernel, padding = _pair(m.kernel_size), _pair(m.padding)
    stride = kernel if m.stride is None else _pair(m.stride)
    floor = tuple((shape[1 + i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))
    if floor != result[1:]:
        raise UnsupportedStepError(
            "has ceil_mode and windows over the border", "use ceil_mode=False, with padding if need be"
        )
    return {"kernel": kernel, "stride": stride, "padding": padding}


def _unsupported(name: str) -> UnsupportedStepError:
    plain = "".join(
        f"_{c.lower()}" if c.isupper() and i and not name[i - 1].isupper() else c.lower() for i, c in enumerate(name)
    )
    for names, instead in INSTEAD.items():
        if plain in names.split() or plain.replace("_", "") in names.replace("_", "").split():
            return UnsupportedStepError(f"{name} is not supported", instead)
    return UnsupportedStepError(f"{name} is not supported", "see docs/networks.md for the operations that are")


def _pair(value: Any) -> ir.Pair:
    return (int(value[0]), int(value[-1])) if isinstance(value, tuple | list) else (int(value), int(value))


def _bias(bias: Tensor | None, count: int) -> Tensor:
    return torch.zeros(count) if bias is None else bias.detach().clone()


def _is_value(node: fx.Node) -> bool:
    """Whether a node is a batch of values, not a size or a flag."""
    return "tensor_meta" in node.meta and node.op != "placeholder"


def _shape(node: fx.Node) -> Shape:
    meta = node.meta["tensor_meta"]
    return tuple(meta.shape[1:]) if hasattr(meta, "shape") else ()


def _place(node: fx.Node) -> str:
    """Path of the module, or file and line of the call."""
    if node.op == "call_module":
        return str(node.target)
    lines = (node.stack_trace or "").strip().splitlines()
    for header, code in zip(lines[-2::-2], lines[::-2], strict=False):
        if 'File "' in header and TORCH not in (path := Path(header.split('"')[1])).parents:
            return f"{path.name}:{header.split('line ')[1].split(',')[0]} ({code.strip()})"
    return node.name
