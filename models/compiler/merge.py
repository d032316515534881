"""Two linear layers in a row as one."""

from dataclasses import replace

import torch
from torch import Tensor

from ciphershift.models.compiler import ir


def merged_linear(first: ir.Operation, second: ir.Operation) -> ir.Operation | None:
    """One layer that computes both; none where that would not be exact, as with padding between them."""
    if isinstance(first, ir.Linear) and isinstance(second, ir.Linear):
        return replace(
            second,
            weight=second.weight @ first.weight,
            bias=second.bias + second.weight @ first.bias,
            inputs=first.inputs,
        )
    if not (isinstance(first, ir.Conv2d) and isinstance(second, ir.Conv2d)):
        return None
    one_tap = second.weight.shape[2:] == (1, 1) and second.padding == (0, 0)
    if not one_tap or (first.groups != 1 and second.groups != 1):
        return None
    if second.groups == 1:
        weight = torch.einsum("om,mikl->oikl", second.weight[:, :, 0, 0], _dense(first))
        bias = second.bias + second.weight[:, :, 0, 0] @ first.bias
    elif second.groups == len(first.weight) == len(second.weight):
        scale = second.weight.flatten()
        weight, bias = first.weight * scale[:, None, None, None], second.bias + scale * first.bias
    else:
        return None
    stride = (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1])
    return replace(
        second, weight=weight, bias=bias, stride=stride, padding=first.padding, groups=1, inputs=first.inputs
    )


def _dense(conv: ir.Conv2d) -> Tensor:
    """The weights of a grouped convolution as those of one without groups: zeros between the groups."""
    blocks = conv.weight.view(conv.groups, -1, *conv.weight.shape[1:])
    inputs = conv.weight.shape[1]
    weight = conv.weight.new_zeros(len(conv.weight), inputs * conv.groups, *conv.weight.shape[2:])
    for group, block in enumerate(blocks.unbind()):
        weight[group * len(block) : (group + 1) * len(block), group * inputs : (group + 1) * inputs] = block
    return weight
