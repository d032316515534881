"""What the operators of ONNX compute, in torch: https://onnx.ai/onnx/operators, opsets 7 to 24."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ciphershift.models.compiler.step import UnsupportedStepError

Attributes = Mapping[str, Any]
Operator = Callable[..., Any]


def numbers(value: Any) -> list[int]:
    """A constant tensor of integers as a list."""
    if isinstance(value, Tensor):
        raise UnsupportedStepError("takes sizes or places that depend on the input", "use constants for them")
    return [int(v) for v in np.asarray(value).reshape(-1)]


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    sides = x.dim() - 2
    stride, dilation = a.get("strides", [1] * sides), a.get("dilations", [1] * sides)
    x, padding = _padded(a, x, list(weight.shape[2:]), stride, dilation, value=0.0)
    run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[sides]
    return run(x, weight, bias, stride, padding, dilation, a.get("group", 1))


def _conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    sides = x.dim() - 2
    stride, dilation = a.get("strides", [1] * sides), a.get("dilations", [1] * sides)
    pads, more = a.get("pads", [0] * 2 * sides), a.get("output_padding", [0] * sides)
    if "output_shape" in a or a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or pads[:sides] != pads[sides:]:
        raise UnsupportedStepError("has padding that differs between the sides", "state the same pads for both sides")
    run = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[sides]
    return run(x, weight, bias, stride, pads[:sides], more, a.get("group", 1), dilation)


def _padded(
    a: Attributes, x: Tensor, kernel: list[int], stride: list[int], dilation: list[int], *, value: float
) -> tuple[Tensor, list[int]]:
    """The input, padded already where both sides differ, and the padding that is left."""
    sides = len(kernel)
    pads = a.get("pads", [0] * 2 * sides)
    if a.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = less + more if a["auto_pad"] == "SAME_UPPER" else more + less
    if pads[:sides] == pads[sides:]:
        return x, pads[:sides]
    flat = [p for side in reversed(range(sides)) for p in (pads[side], pads[side + sides])]
    return F.pad(x, flat, value=value), [0] * sides


def _pool(a: Attributes, x: Tensor, *, greatest: bool) -> Tensor:
    kernel = list(a["kernel_shape"])
    sides = len(kernel)
    stride, dilation = a.get("strides", [1] * sides), a.get("dilations", [1] * sides)
    ceil = bool(a.get("ceil_mode", 0))
    if greatest:
        x, padding = _padded(a, x, kernel, stride, dilation, value=-torch.inf)
        return (F.max_pool1d if sides == 1 else F.max_pool2d)(x, kernel, stride, padding, dilation, ceil)
    if any(d != 1 for d in dilation):
        raise UnsupportedStepError("averages a dilated window", "use dilation 1")
    padded, padding = _padded(a, x, kernel, stride, dilation, value=0.0)
    counts = bool(a.get("count_include_pad", 0))
    if padded is not x and not counts:
        raise UnsupportedStepError("averages with padding that differs between the sides", "use count_include_pad=1")
    return (F.avg_pool1d if sides == 1 else F.avg_pool2d)(padded, kernel, stride, padding, ceil, counts)


def _gemm(a: Attributes, x: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
    x, y = (v.mT if a.get(f"trans{name}", 0) else v for v, name in ((x, "A"), (y, "B")))
    return _affine(x, y * a.get("alpha", 1.0), None if c is None else c * a.get("beta", 1.0))


def _affine(x: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
    """The product x @ y, plus c; a dense layer where y is a matrix."""
    if y.dim() != 2:
        return torch.matmul(x, y)
    vector = c is not None and c.numel() == y.shape[1]
    result = F.linear(x, y.mT, c.reshape(-1) if vector and c is not None else None)
    return result if c is None or vector else result + c


def _reduced(a: Attributes, x: Tensor, axes: Any = None, *, function: Callable[..., Tensor]) -> Tensor:
    chosen = numbers(axes) if axes is not None else list(a.get("axes", []))
    if not chosen and a.get("noop_with_empty_axes", 0):
        return x
    return function(x, chosen or list(range(x.dim())), keepdim=bool(a.get("keepdims", 1)))


def _slice(a: Attributes, x: Tensor, *ends: Any) -> Tensor:
    starts, stops = (numbers(ends[i]) if len(ends) > i else a[name] for i, name in enumerate(("starts", "ends")))
    axes = numbers(ends[2]) if len(ends) > 2 and ends[2] is not None else a.get("axes", range(len(starts)))
    steps = numbers(ends[3]) if len(ends) > 3 and ends[3] is not None else [1] * len(starts)
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        places = range(*slice(start, None if step < 0 and stop < -x.shape[axis] else stop, step).indices(x.shape[axis]))
        chosen = torch.tensor(list(places), dtype=torch.int64)
        x = x.narrow(axis, places.start, len(places)) if step == 1 else x.index_select(axis, chosen)
    return x


def _pad(a: Attributes, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    sides = numbers(pads) if pads is not None else list(a["pads"])
    chosen = [axis % x.dim() for axis in numbers(axes)] if axes is not None else list(range(x.dim()))
    around = {axis: (sides[i], sides[i + len(chosen)]) for i, axis in enumerate(chosen)}
    mode = a.get("mode", "constant")
    flat = [p for axis in reversed(range(x.dim())) for p in around.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:  # torch pads the last axes, and other modes only these
        del flat[-2:]
    if mode == "constant":
        return F.pad(x, flat, value=0.0 if value is None else float(np.asarray(value).reshape(())))
    return F.pad(x, flat, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _resize(a: Attributes, x: Tensor, *rest: Any) -> Tensor:
    sizes = numbers(rest[2]) if len(rest) > 2 and rest[2] is not None else None
    if sizes is None:
        scales = np.asarray(rest[1] if len(rest) > 1 else rest[0]).reshape(-1)
        sizes = [int(np.floor(n * s)) for n, s in zip(x.shape, scales, strict=True)]
    whole = all(new % old == 0 for old, new in zip(x.shape, sizes, strict=True))
    if a.get("mode", "nearest") != "nearest" or tuple(sizes[:2]) != tuple(x.shape[:2]) or not whole:
        raise UnsupportedStepError("interpolates", "use nearest upsampling by a whole factor, which only copies values")
    return F.interpolate(x, size=sizes[2:], mode="nearest")


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    size, (n, c, h, w) = a["blocksize"], x.shape
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    blocks = x.reshape(n, size, size, c // size**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(a: Attributes, x: Tensor) -> Tensor:
    size, (n, c, h, w) = a["blocksize"], x.shape
    blocks = x.reshape(n, c, h // size, size, w // size, size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * size**2, h // size, w // size)


def _clip(a: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    ends = (low if low is not None else a.get("min"), high if high is not None else a.get("max"))
    bounds = [None if end is None else float(np.asarray(end).reshape(())) for end in ends]
    return torch.clamp(x, *[None if b is None or abs(b) > 1e30 else b for b in bounds])


def _batch_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if a.get("training_mode", 0):
        raise UnsupportedStepError("is in training mode", "export the module in evaluation mode")
    return F.batch_norm(x, mean, variance, scale, bias, eps=a.get("epsilon", 1e-5))


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.flatten(1) if axis == 1 else x.flatten(0, axis - 1).flatten(1)


def _layer_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, x.shape[a.get("axis", -1) % x.dim() :], scale, bias, a.get("epsilon", 1e-5))


def _squeezed(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    chosen = numbers(axes) if axes is not None else list(a.get("axes", []))
    return x.squeeze(tuple(chosen)) if chosen else x.squeeze()


def _unsqueezed(a: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    chosen = numbers(axes) if axes is not None else list(a["axes"])
    rank = x.dim() + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _gather(a: Attributes, x: Tensor, index: Any) -> Tensor:
    axis, places = a.get("axis", 0), np.asarray(index)
    if not places.ndim:
        return x.select(axis, int(places))
    flat = x.index_select(axis, torch.tensor([int(i) % x.shape[axis] for i in places.reshape(-1)]))
    return flat.reshape(*x.shape[:axis], *places.shape, *x.shape[axis:][1:])


def _normalized(a: Attributes, x: Tensor, *, function: Callable[..., Tensor]) -> Tensor:
    return function(x, a.get("axis", -1))


def _pointwise(function: Callable[..., Any]) -> Operator:
    return lambda a, *x: function(*x)


def _all_of(function: Callable[..., Any]) -> Operator:
    def run(a: Attributes, *x: Any) -> Any:
        result = x[0]
        for other in x[1:]:
            result = function(result, other)
        return result

    return run


PLAIN = ("Resize", "Upsample", "Pad", "Clip", "Gather")
"""Operators whose constants are numbers that the graph is built from, and no weights: they get arrays of NumPy."""
OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda a, x, y: _affine(x, y),
    "Scaler": lambda a, x: (x - torch.tensor(a["offset"])) * torch.tensor(a["scale"]),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": lambda a, x, s, b: F.instance_norm(x, weight=s, bias=b, eps=a.get("epsilon", 1e-5)),
    "MaxPool": partial(_pool, greatest=True),
    "AveragePool": partial(_pool, greatest=False),
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda a, x: F.adaptive_max_pool1d(x, 1) if x.dim() == 3 else F.adaptive_max_pool2d(x, 1),
    "ReduceMean": partial(_reduced, function=torch.mean),
    "ReduceSum": partial(_reduced, function=torch.sum),
    "Flatten": _flatten,
    "Transpose": lambda a, x: x.permute(a.get("perm", list(reversed(range(x.dim()))))),
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Slice": _slice,
    "Pad": _pad,
    "Gather": _gather,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Tile": lambda a, x, times: x.repeat(numbers(times)),
    "Resize": _resize,
    "Upsample": lambda a, x, scales=None: _resize(a, x, None, a.get("scales") if scales is None else scales),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Identity": lambda a, x: x,
    "Dropout": lambda a, x, *rest: x,
    "Cast": lambda a, x, *rest: x,
    "CastLike": lambda a, x, *rest: x,
    "Softmax": partial(_normalized, function=torch.softmax),
    "LogSoftmax": partial(_normalized, function=torch.log_softmax),
    "Add": _pointwise(torch.add),
    "Sub": _pointwise(torch.sub),
    "Mul": _pointwise(torch.mul),
    "Div": _pointwise(torch.div),
    "Pow": _pointwise(torch.pow),
    "Sum": _all_of(torch.add),
    "Mean": lambda a, *x: _all_of(torch.add)(a, *x) / len(x),
    "Max": _all_of(lambda x, y: torch.maximum(x, y) if isinstance(y, Tensor) else torch.clamp(x, min=y)),
    "Min": _all_of(lambda x, y: torch.minimum(x, y) if isinstance(y, Tensor) else torch.clamp(x, max=y)),
    "Where": _pointwise(torch.where),
    "Greater": _pointwise(torch.gt),
    "GreaterOrEqual": _pointwise(torch.ge),
    "Less": _pointwise(torch.lt),
    "LessOrEqual": _pointwise(torch.le),
    "Equal": _pointwise(torch.eq),
    "Not": _pointwise(torch.logical_not),
    "And": _pointwise(torch.logical_and),
    "Or": _pointwise(torch.logical_or),
    "Clip": _clip,
    "Relu": _pointwise(torch.relu),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "PRelu": lambda a, x, slope: torch.where(x > 0, x, x * slope),
    "ThresholdedRelu": lambda a, x: torch.where(x > a.get("alpha", 1.0), x, 0.0 * x),
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Celu": lambda a, x: F.celu(x, a.get("alpha", 1.0)),
    "Selu": lambda a, x: a.get("gamma", 1.0507009873554805) * F.elu(x, a.get("alpha", 1.6732632423543772)),
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "HardSigmoid": lambda a, x: torch.clamp(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0),
    "Shrink": lambda a, x: torch.where(
        x < -a.get("lambd", 0.5),
        x + a.get("bias", 0.0),
        torch.where(x > a.get("lambd", 0.5), x - a.get("bias", 0.0), 0.0 * x),
    ),
    "HardSwish": _pointwise(F.hardswish),
    "Mish": _pointwise(F.mish),
    "Swish": lambda a, x: x * torch.sigmoid(a.get("alpha", 1.0) * x),
    "Sigmoid": _pointwise(torch.sigmoid),
    "Tanh": _pointwise(torch.tanh),
    "Softplus": _pointwise(F.softplus),
    "Softsign": _pointwise(F.softsign),
    "Reciprocal": _pointwise(torch.reciprocal),
    **{
        name: _pointwise(getattr(torch, name.lower()))
        for name in ("Abs", "Neg", "Exp", "Log", "Sqrt", "Erf", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan")
    },
    **{name: _pointwise(getattr(torch, name.lower())) for name in ("Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh")},
}
"""By name: from a node's attributes and its inputs, of which constants of integers are arrays of NumPy. Split, Reshape, Expand and Shape,
which are about sizes, are in models.compiler.onnx_graph."""


def split(a: Attributes, outputs: int, x: Tensor, sizes: Any = None) -> list[Tensor]:
    """Split into as many parts as the node has outputs."""
    axis = a.get("axis", 0)
    chosen = numbers(sizes) if sizes is not None else list(a.get("split", []))
    return list(torch.split(x, chosen or -(-x.shape[axis] // a.get("num_outputs", outputs)), axis))
