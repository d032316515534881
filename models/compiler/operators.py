"""What each function of torch is in the intermediate form: one reader for each, by the function's name in torch's operator set (ATen)."""

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ciphershift.he_layers.layers import Shape
from ciphershift.models.compiler import ir
from ciphershift.models.compiler.places import PLACE_MAPS, move, values_in
from ciphershift.models.compiler.step import Call, Postponed, UnsupportedStepError, Value, pair
from ciphershift.models.compiler.unsupported import NORM, PRODUCT, unsupported
from ciphershift.models.compiler.windows import adaptive_avg_pool, adaptive_max_pool, avg_pool, grid, max_pool
from ciphershift.models.nn.activations import per_channel


def operations_of(call: Call) -> tuple[tuple[ir.Operation, ...], str]:
    """The operations of one call, and the name of the one that has its result.

    Raises:
        UnsupportedStepError: the call cannot be evaluated.
    """
    function = call.function
    if function in PLACE_MAPS:
        return call.finish(move(call))
    if any(isinstance(leaf, Postponed) for leaf in pytree.tree_leaves((call.arguments, call.options))):
        raise UnsupportedStepError(
            "has the batch on another axis than the first", "use batch_first=True, or transpose before this step"
        )
    reader = READERS.get(function) or (_pointwise if is_pointwise(call) else None)
    if reader is None:
        raise unsupported(function)
    try:
        return call.finish(reader(call, *call.arguments, **call.options))
    except TypeError as error:  # an option that the reader does not know
        raise UnsupportedStepError(
            f"{function} is called with an option that is not supported: {error}", "leave it out"
        ) from error


def _constant(value: Any) -> bool:
    return not isinstance(value, Value)


def _require_constant(*weights: Any) -> None:
    """Raises UnsupportedStepError for weights that depend on the input."""
    if not all(map(_constant, weights)):
        raise UnsupportedStepError("has weights that depend on the input", PRODUCT)


def _conv2d(
    call: Call,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    _require_constant(weight, bias)
    source, weight = _source(weight), _dilated(weight.detach(), pair(dilation))
    if isinstance(padding, str):
        sides = (0, 0) if padding == "valid" else tuple(side - 1 for side in weight.shape[2:])
        if any(side % 2 for side in sides):
            x = _padded(call, x, sides)
            sides = (0, 0)
        padding = tuple(side // 2 for side in sides)
    return call.add(
        ir.Conv2d,
        x,
        shape=call.shape if len(call.shape) == 3 else (call.shape[0], 1, call.shape[1]),
        weight=weight,
        bias=_bias(bias, len(weight)),
        source=source,
        stride=pair(stride),
        padding=pair(padding),
        groups=groups,
    )


def _conv1d(
    call: Call,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """A series as an image of one row."""
    _require_constant(weight)
    rows = call.reshape(x, (x.shape[0], 1, x.shape[1]))
    around = padding if isinstance(padding, str) else (0, _single(padding))
    options = ((1, _single(stride)), around, (1, _single(dilation)), groups)
    return call.reshape(_conv2d(call, rows, weight[:, :, None], bias, *options), call.shape)


def _conv_transpose2d(
    call: Call,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """A convolution with the kernel turned around, on the input with zeros between its values and around them."""
    _require_constant(weight, bias)
    inputs, maps, *_ = weight.shape
    turned = weight.detach().view(groups, inputs // groups, maps, *weight.shape[2:]).transpose(1, 2).flip(3, 4)
    turned = _dilated(turned.reshape(groups * maps, inputs // groups, *weight.shape[2:]), pair(dilation))
    before = [side - 1 - p for side, p in zip(turned.shape[2:], pair(padding), strict=True)]
    sizes = [
        (n - 1) * s + 1 + 2 * b + more
        for n, s, b, more in zip(x.shape[1:], pair(stride), before, pair(output_padding), strict=True)
    ]
    rows, columns = (
        [(place - b) // s if 0 <= place - b < n * s and (place - b) % s == 0 else -1 for place in range(size)]
        for size, b, s, n in zip(sizes, before, pair(stride), x.shape[1:], strict=True)
    )
    wide = call.gather((x,), grid(x, rows, columns), (x.shape[0], *sizes))
    shape = call.shape if len(call.shape) == 3 else (call.shape[0], 1, call.shape[1])
    return call.add(
        ir.Conv2d,
        wide,
        shape=shape,
        weight=turned,
        bias=_bias(bias, len(turned)),
        stride=(1, 1),
        padding=(0, 0),
        groups=groups,
    )


def _conv_transpose1d(
    call: Call,
    x: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    _require_constant(weight)
    rows = call.reshape(x, (x.shape[0], 1, x.shape[1]))
    options = (
        (1, _single(stride)),
        (0, _single(padding)),
        (0, _single(output_padding)),
        groups,
        (1, _single(dilation)),
    )
    return call.reshape(_conv_transpose2d(call, rows, weight[:, :, None], bias, *options), call.shape)


def _dilated(weight: Tensor, dilation: ir.Pair) -> Tensor:
    """The kernel with zeros between its taps, which cost nothing."""
    if dilation == (1, 1):
        return weight.clone()
    outputs, inputs, height, width = weight.shape
    wide = weight.new_zeros(outputs, inputs, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def _padded(call: Call, x: Value, more: tuple[int, ...]) -> Value:
    """Zeros around an image, of an odd total the larger part below and to the right, as padding='same' has it."""
    channels, height, width = x.shape
    top, left = more[0] // 2, more[1] // 2
    places = torch.full((channels, height + more[0], width + more[1]), -1)
    places[:, top : top + height, left : left + width] = torch.arange(prod(x.shape)).view(x.shape)
    return call.gather((x,), places.flatten(), tuple(places.shape))


def _linear(call: Call, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    _require_constant(weight, bias)
    source, weight, bias = _source(weight), weight.detach().clone(), _bias(bias, len(weight))
    if len(x.shape) == 1:
        return call.add(ir.Linear, x, shape=call.shape, weight=weight, bias=bias, source=source)
    *rest, features = x.shape
    places = (
        torch.arange(prod(x.shape)).view(-1, features).T
    )  # features become the channels of a convolution of one tap
    rows = call.gather((x,), places.flatten(), (features, prod(rest), 1))
    sums = call.add(ir.Conv2d, rows, shape=(len(weight), prod(rest), 1), weight=weight[:, :, None, None], bias=bias)
    back = torch.arange(prod(sums.shape)).view(len(weight), -1).T
    return call.gather((sums,), back.flatten(), call.shape)


def _matmul(call: Call, x: Value, weight: Tensor) -> Value:
    """A dense layer whose weights are written [inputs, outputs]."""
    if _constant(x) or not _constant(weight) or weight.dim() != 2:
        raise unsupported("matmul")
    return _linear(call, x, weight.T)


def _addmm(call: Call, bias: Tensor, x: Value, weight: Tensor) -> Value:
    if _constant(x) or not _constant(weight) or not _constant(bias):
        raise unsupported("addmm")
    return _linear(call, x, weight.T, bias.expand(weight.shape[1]) if bias.dim() < 2 else bias.reshape(-1))


def _einsum(call: Call, equation: str, *operands: Any) -> Value:
    """A dense layer on the last axis, in any spelling of its weights: "bi,io->bo", "...i,oi->...o"."""
    x, *weights = operands[0] if isinstance(operands[0], list | tuple) else operands
    read = re.fullmatch(r"(\.\.\.|\w*)(\w),(\w)(\w)->\1(\w)", equation.replace(" ", ""))
    if read is None or _constant(x) or len(weights) != 1 or not _constant(weights[0]):
        raise unsupported("einsum")
    _, inner, first, second, outer = read.groups()
    if {first, second} != {inner, outer} or inner == outer:
        raise unsupported("einsum")
    return _linear(call, x, weights[0].T if first == inner else weights[0])


def _source(weight: Tensor) -> int:
    """The same number for the same part of the same weights."""
    return hash((weight.data_ptr(), weight.shape, weight.stride()))


def _bias(bias: Tensor | None, count: int) -> Tensor:
    return torch.zeros(count) if bias is None else bias.detach().clone()


def _single(value: Any) -> int:
    return int(value[0]) if isinstance(value, tuple | list) else int(value)


def _batch_norm(
    call: Call,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    *rest: Any,
) -> Value:
    eps = next(value for value in reversed(rest) if isinstance(value, float))
    if mean is None or variance is None:
        raise UnsupportedStepError("has no running statistics", "use track_running_stats=True")
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight.detach()
    return call.affine(x, scale, -mean * scale + (0 if bias is None else bias.detach()))


def _batch_statistics(call: Call, *arguments: Any, **options: Any) -> Value:
    raise UnsupportedStepError("is a batch norm without running statistics", f"use track_running_stats=True; {NORM}")


def _clamp(call: Call, x: Value, low: float | None = None, high: float | None = None, **names: Any) -> Value:
    low, high = names.get("min", names.get("min_val", low)), names.get("max", names.get("max_val", high))
    if isinstance(low, Tensor | Value) or isinstance(high, Tensor | Value):
        raise UnsupportedStepError("clips to bounds that are tensors", "use numbers as bounds")
    if low is None and high is None:
        return x
    if low == 0 and high is None:
        return call.add(ir.ReLU, x, shape=x.shape)
    if low is not None and high is not None and low <= 0 < high:
        return call.add(ir.ReLU, x, shape=x.shape, low=float(low), high=float(high))
    if low is not None and high is not None and not low < high:
        raise UnsupportedStepError(f"clips to {low} .. {high}", "use a lower bound below the upper one")
    return call.add(ir.LookUp, x, shape=x.shape, function=lambda v: torch.clamp(v, low, high), rises=True)


def _add(call: Call, a: Any, b: Any, alpha: float = 1.0) -> Value:
    if _constant(a) or _constant(b):
        x, constant, factor = (b, a, 1.0) if _constant(a) else (a, b, alpha)
        own = alpha if _constant(a) else 1.0
        return _shifted(call, x, constant * factor, own)
    if a.name == b.name:
        return call.affine(a, 1.0 + alpha, 0.0)
    a, b = (_broadcast(call, value) for value in (a, b))
    if alpha != 1:
        b = call.affine(b, float(alpha), 0.0)
    if len(call.shape) == 2:  # a series [C, L] as an image of one row
        rows = (call.shape[0], 1, call.shape[1])
        return call.reshape(call.add(ir.Add, *(call.reshape(x, rows) for x in (a, b)), shape=rows), call.shape)
    return call.add(ir.Add, a, b, shape=call.shape)


def _sub(call: Call, a: Any, b: Any, alpha: float = 1.0) -> Value:
    if not _constant(a) and not _constant(b) and a.name == b.name and alpha == 1:
        raise UnsupportedStepError("subtracts a value from itself", "leave it out: the result is zero")
    return _add(call, a, b, -alpha)


def _rsub(call: Call, a: Any, b: Any, alpha: float = 1.0) -> Value:
    return _sub(call, b, a, alpha)


def _mul(call: Call, a: Any, b: Any) -> Value:
    if not _constant(a) and not _constant(b):
        return _pointwise(call, a, b)
    x, constant = (b, a) if _constant(a) else (a, b)
    return call.affine(_broadcast(call, x), _by_channel(constant, call.shape), 0.0)


def _div(call: Call, a: Any, b: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None or not _constant(b):
        return _pointwise(call, a, b, **({} if rounding_mode is None else {"rounding_mode": rounding_mode}))
    return _mul(call, a, 1.0 / b)


def _shifted(call: Call, x: Value, constant: Any, scale: float) -> Value:
    if scale == 1 and not torch.as_tensor(constant).any():
        return _broadcast(call, x)
    return call.affine(_broadcast(call, x), scale, _by_channel(constant, call.shape))


def _by_channel(constant: Any, shape: Shape) -> Tensor | float:
    """A constant that is one number for each channel.

    Raises:
        UnsupportedStepError: it differs within a channel.
    """
    if not isinstance(constant, Tensor):
        return float(constant)
    if constant.dim() > len(shape) and not bool((constant == constant[:1]).all()):
        raise UnsupportedStepError("has another constant for each sample of a batch", "use one constant for all")
    flat = constant.detach().float()
    flat = flat[0] if flat.dim() > len(shape) else flat
    whole = flat.expand(shape).reshape(shape[0], -1)
    if not torch.equal(whole, whole[:, :1].expand_as(whole)):
        raise UnsupportedStepError("has a constant that differs within a channel", "use one number for each channel")
    return whole[:, 0].clone()


def _broadcast(call: Call, x: Value) -> Value:
    """A value copied to the places of the call's result, as torch does when it adds values of different shapes."""
    if x.shape == call.shape:
        return x
    ones = (1,) * (len(call.shape) - len(x.shape))
    places = torch.arange(prod(x.shape)).view(*ones, *x.shape).expand(call.shape)
    return call.gather((x,), places.flatten(), call.shape)


def _mean(call: Call, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return _averaged(call, x, dim)


def _sum(call: Call, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    count = prod(x.shape) // prod(call.shape)
    return call.affine(_averaged(call, x, dim), float(count), 0.0)


def _averaged(call: Call, x: Value, dim: Any) -> Value:
    """The mean over axes: these become the windows of an average pool."""
    rank = len(x.shape) + 1
    axes = sorted(int(axis) % rank for axis in (dim if isinstance(dim, tuple | list) else (dim,)) if axis is not None)
    if not axes or 0 in axes:
        raise UnsupportedStepError("averages over the batch", "name the axes to average over: dim=(2, 3)")
    kept = [axis - 1 for axis in range(1, rank) if axis not in axes]
    if axes == list(range(2, rank)) and rank == 4:
        window = {"kernel": (x.shape[1], x.shape[2]), "stride": (x.shape[1], x.shape[2]), "padding": (0, 0)}
        return call.reshape(call.add(ir.AvgPool2d, x, shape=(x.shape[0], 1, 1), **window), call.shape)
    places = torch.arange(prod(x.shape)).view(x.shape).permute(*kept, *[axis - 1 for axis in axes])
    results = prod(x.shape[axis] for axis in kept)
    size = prod(x.shape) // results
    rows = call.gather((x,), places.flatten(), (results, 1, size))
    averages = call.add(ir.AvgPool2d, rows, shape=(results, 1, 1), kernel=(1, size), stride=(1, size), padding=(0, 0))
    return call.reshape(averages, call.shape)


def _identity(call: Call, x: Value, *rest: Any, **options: Any) -> Value:
    return call.gather(values_in((x,)), torch.arange(prod(x.shape)), x.shape)


POINTWISE_BESIDES = frozenset({"hardswish", "log_sigmoid", "where", "rrelu"})
"""Functions of the number at one place that torch does not mark as such."""
RISING = frozenset(
    {
        *(
            "leaky_relu",
            "prelu",
            "rrelu",
            "elu",
            "celu",
            "selu",
            "hardsigmoid",
            "sigmoid",
            "log_sigmoid",
            "tanh",
            "softplus",
            "threshold",
        ),
        *("exp", "log", "sqrt", "hardtanh"),
    }
)
"""Functions that never fall, unless an option makes them."""


def is_pointwise(call: Call) -> bool:
    """Whether a function computes each number of its result from the numbers at the same place."""
    tags = getattr(call.run, "tags", ())
    random = torch.Tag.nondeterministic_seeded in tags and call.function != "rrelu"
    return (torch.Tag.pointwise in tags or call.function in POINTWISE_BESIDES) and not random


def _pointwise(call: Call, *arguments: Any, **options: Any) -> Value:
    """Any function of the numbers at one place: of one value a look-up, of several for models.compiler.pointwise."""
    by_channel = False

    def constant(leaf: Any) -> Any:
        nonlocal by_channel
        if not isinstance(leaf, Tensor) or leaf.numel() == 1:
            return leaf.reshape(()) if isinstance(leaf, Tensor) else leaf
        by_channel = True
        return _by_channel(leaf, call.shape)

    arguments, options = (pytree.tree_map(constant, part) for part in (arguments, options))

    def function(*numbers: Tensor) -> Tensor:
        given = iter(numbers)

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Value):
                return next(given)
            return per_channel(leaf, numbers[0]) if isinstance(leaf, Tensor) and leaf.dim() else leaf

        result: Tensor = call.run(*pytree.tree_map(filled, arguments), **pytree.tree_map(filled, options))
        return result

    inputs = tuple(_broadcast(call, value) for value in values_in((arguments, options)))
    if len(inputs) > 1:
        own = {"function": function, "torch_name": call.function, "by_channel": by_channel}
        return call.add(ir.Pointwise, *inputs, shape=call.shape, **own)
    return _look_up(call, inputs[0], function, by_channel=by_channel)


def _look_up(call: Call, x: Value, function: ir.Function, *, by_channel: bool = False) -> Value:
    grid = torch.linspace(-8, 8, 257).view(-1, 1).expand(-1, call.shape[0])
    steps = function(grid).float().diff(dim=0).nan_to_num(0.0)
    rises = call.function in RISING and bool((steps >= 0).all())
    return call.add(
        ir.LookUp, x, shape=call.shape, function=function, by_channel=by_channel, rises=rises, torch_name=call.function
    )


def _softmax(call: Call, x: Value, dim: int, *rest: Any, **options: Any) -> Value:
    if dim not in (1, -1) or len(x.shape) != 1:
        raise UnsupportedStepError(
            f"{call.function.strip('_')} over an axis of many",
            "only a softmax over all logits can be left to the client",
        )
    return call.add(ir.Output, x, shape=call.shape, function=call.function.strip("_"))


def _glu(call: Call, x: Value, dim: int = -1) -> Value:
    axis = dim % (len(x.shape) + 1)
    halves = torch.arange(prod(x.shape)).view(1, *x.shape).chunk(2, axis)
    first, second = (call.gather((x,), half.flatten(), call.shape) for half in halves)
    gate = call.add(ir.LookUp, second, shape=call.shape, function=torch.sigmoid, torch_name="sigmoid", rises=True)
    return call.add(ir.Pointwise, first, gate, shape=call.shape, function=torch.mul, torch_name="mul")


def _prelu(call: Call, x: Value, weight: Tensor) -> Value:
    slope = weight.detach().reshape(-1)
    return _look_up(
        call, x, lambda v: torch.where(v > 0, v, v * per_channel(slope.to(v), v)), by_channel=slope.numel() > 1
    )


READERS: dict[str, Callable[..., Value]] = {
    "conv2d": _conv2d,
    "conv1d": _conv1d,
    "conv_transpose2d": _conv_transpose2d,
    "conv_transpose1d": _conv_transpose1d,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "einsum": _einsum,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_native_batch_norm_legit": _batch_statistics,
    "relu": lambda call, x: call.add(ir.ReLU, x, shape=x.shape),
    "relu6": lambda call, x: call.add(ir.ReLU, x, shape=x.shape, high=6.0),
    "hardtanh": lambda call, x, low=-1.0, high=1.0: _clamp(call, x, low, high),
    "glu": _glu,
    "softmax": _softmax,
    "_softmax": _softmax,
    "log_softmax": _softmax,
    "_log_softmax": _softmax,
    "clamp": _clamp,
    "prelu": _prelu,
    "clamp_min": lambda call, x, low: _clamp(call, x, low, None),
    "clamp_max": lambda call, x, high: _clamp(call, x, None, high),
    "max_pool2d": max_pool,
    "max_pool1d": max_pool,
    "avg_pool2d": avg_pool,
    "avg_pool1d": avg_pool,
    "adaptive_avg_pool2d": adaptive_avg_pool,
    "adaptive_avg_pool1d": adaptive_avg_pool,
    "adaptive_max_pool2d": adaptive_max_pool,
    "adaptive_max_pool1d": adaptive_max_pool,
    "mean": _mean,
    "sum": _sum,
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "neg": lambda call, x: call.affine(x, -1.0, 0.0),
}
