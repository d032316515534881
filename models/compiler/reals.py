"""What operations compute on real numbers, as the module does: the sums of all steps, before any of them has a scale."""

import torch
from torch import Tensor
from torch.nn import functional

from ciphershift.he_layers.program import IMAGE
from ciphershift.models.compiler import ir
from ciphershift.models.nn.activations import per_channel
from ciphershift.models.nn.lookup import side_by_side


def reals(operations: list[ir.Operation], samples: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    """Values [B, ...] of the operations of these names, in float.

    Args:
        operations: as they are simplified.
        samples: of the module's input.
        wanted: names.
    """
    values = {IMAGE: samples}
    last = {name: operation.name for operation in operations for name in operation.inputs}
    for operation in operations:
        values[operation.name] = _value(operation, [values[name] for name in operation.inputs])
        for name in set(operation.inputs):
            if last[name] == operation.name and name not in wanted:
                del values[name]
    return {name: values[name] for name in wanted}


def _value(o: ir.Operation, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    match o:
        case ir.Conv2d():
            return functional.conv2d(x, o.weight, o.bias, o.stride, o.padding, 1, o.groups)
        case ir.Linear():
            return functional.linear(x, o.weight, o.bias)
        case ir.Affine():
            return x * per_channel(o.scale, x) + per_channel(o.shift, x)
        case ir.ReLU():
            return x.clamp(o.low, o.high)
        case ir.CReLU():
            return side_by_side(x, -x).clamp(0, o.high)
        case ir.LookUp():
            return o.function(x).float()
        case ir.MaxPool2d():
            return functional.max_pool2d(x, o.kernel, o.stride, o.padding)
        case ir.AvgPool2d():
            return functional.avg_pool2d(x, o.kernel, o.stride, o.padding)
        case ir.Add():
            return torch.stack(inputs).sum(0)
        case ir.Concat():
            return torch.cat(inputs, dim=1)
        case ir.ChannelShuffle():
            return functional.channel_shuffle(x, o.groups)
    assert isinstance(o, ir.Gather | ir.Reshape | ir.Flatten), (
        f"{o.name} is no operation after models.compiler.simplify"
    )
    flat = torch.cat([part.flatten(1) for part in inputs], dim=1)
    if isinstance(o, ir.Gather):
        flat = torch.where(o.index >= 0, flat[:, o.index.clamp_min(0)], 0.0)
    return flat.view(len(flat), *o.shape)
