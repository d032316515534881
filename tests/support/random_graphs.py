"""Random networks of the operations that conversion reads: steps by name, each made for the shape that the steps before it give."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.architectures import Net, Shape

Function = Callable[[Tensor], Tensor]
Maker = Callable[[Shape, Function], nn.Module]

ACTIVATIONS: tuple[Function, ...] = (
    *(F.relu, F.relu6, F.hardtanh, F.gelu, F.silu, F.elu, F.celu, F.selu, F.mish, F.softplus, F.softsign, F.logsigmoid),
    *(F.hardswish, F.hardsigmoid, F.hardshrink, F.softshrink, F.tanhshrink, torch.tanh, torch.sigmoid, torch.abs),
    torch.square,
    lambda x: F.leaky_relu(x, 0.2),
    lambda x: x * torch.sigmoid(2 * x) - 0.1,
    lambda x: x.clamp(-0.3, 0.8),
    lambda x: F.threshold(x, 0.1, -0.2),
    lambda x: torch.where(x > 0, x, 0.1 * x),
    lambda x: torch.exp(x.clamp(max=1.0)) / 2,
    lambda x: torch.log(x.clamp(0.05, 10.0)),
    lambda x: x / (1 + x.abs()),
)
LONGEST = 12
"""No step makes an axis longer."""


def conv(shape: Shape, maps: int, kernel: int = 3, *, back: bool = False, **options: Any) -> nn.Module:
    """A convolution of images [C, H, W] or series [C, L], or a transposed one."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if back else (nn.Conv1d, nn.Conv2d)
    options = {"padding": kernel // 2} | options
    return kinds[len(shape) - 2](shape[0], maps, kernel, **options)


def norm(shape: Shape, channels: int) -> nn.Module:
    """A batch norm with statistics of its own, of both signs."""
    made = (nn.BatchNorm1d, nn.BatchNorm2d)[len(shape) - 2](channels)
    for values, low, high in (
        (made.weight, -1.5, 1.5),
        (made.bias, -0.3, 0.3),
        (made.running_mean, -0.2, 0.2),
        (made.running_var, 0.2, 1.5),
    ):
        assert values is not None
        nn.init.uniform_(values, low, high)
    return made


def pooled(x: Tensor, name: str, *options: Any) -> Tensor:
    """A pool of torch's for images or series."""
    result: Tensor = getattr(F, f"{name}{x.dim() - 2}d")(x, *options)
    return result


def after(make: Callable[[Shape], nn.Module], then: Function = lambda x: x) -> Maker:
    """A linear part, the activation, and a step behind it."""
    return lambda shape, act: Net(lambda s, x: then(act(s.part(x))), part=make(shape))


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


STEPS: dict[str, Maker] = {
    "plain": after(lambda shape: conv(shape, 3)),
    "normed": after(lambda shape: nn.Sequential(conv(shape, 3), norm(shape, 3))),
    "strided": after(lambda shape: conv(shape, 3, stride=2)),
    "dilated": after(lambda shape: conv(shape, 3, dilation=2, padding=2)),
    "depthwise": after(lambda shape: conv(shape, shape[0], groups=shape[0])),
    "same": after(lambda shape: conv(shape, 3, padding="same")),
    "even": after(lambda shape: conv(shape, 3, 2, padding=1)),
    "reflected": after(lambda shape: conv(shape, 3, padding_mode="reflect")),
    "circular": after(lambda shape: conv(shape, 3, padding_mode="circular")),
    "replicated": after(lambda shape: conv(shape, 3, padding_mode="replicate")),
    "transposed": after(lambda shape: conv(shape, 3, back=True, stride=2, output_padding=1)),
    "two": lambda shape, act: Net(lambda s, x: act(s.b(s.a(x))), a=conv(shape, 4), b=conv((4, *shape[1:]), 3)),
    "residual": lambda shape, act: Net(lambda s, x: x + act(s.part(x)), part=conv(shape, shape[0])),
    "sum inside": lambda shape, act: Net(lambda s, x: act(x + s.part(x)), part=conv(shape, shape[0])),
    "subtracted": lambda shape, act: Net(lambda s, x: 0.5 * x - act(s.part(x)), part=conv(shape, shape[0])),
    "twice": lambda shape, act: Net(
        lambda s, x: (lambda y: act(torch.add(y, x, alpha=2)) + torch.tanh(y))(s.part(x)), part=conv(shape, shape[0])
    ),
    "sums read twice": lambda shape, act: Net(
        lambda s, x: (lambda y, z: act(0.7 * y + z) + torch.tanh(y - 0.1) + 0.3 * act(z))(s.a(x), s.b(x)),
        a=conv(shape, 3),
        b=conv(shape, 3, 1),
    ),
    "joined": lambda shape, act: Net(lambda s, x: torch.cat([x, act(s.part(x))], 1), part=conv(shape, 2)),
    "same joined": after(lambda shape: conv(shape, 2), lambda y: torch.cat([y, y], 1)),
    "gated": lambda shape, act: Net(lambda s, x: act(x) * torch.sigmoid(s.part(x)), part=conv(shape, shape[0])),
    "product": lambda shape, act: Net(lambda s, x: act(s.a(x)) * s.b(x), a=conv(shape, 3), b=conv(shape, 3, 1)),
    "glu": lambda shape, act: Net(lambda s, x: F.glu(s.part(x), 1), part=conv(shape, 6)),
    "squeezed": lambda shape, act: Net(
        lambda s, x: x * act(s.part(x.flatten(2).mean(2))).reshape(-1, shape[0], *[1] * (x.dim() - 2)),
        part=nn.Linear(shape[0], shape[0]),
    ),
    "max": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "max_pool", 2)),
    "max of three": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "max_pool", 3, 2, 1)),
    "max, dilated": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "max_pool", 2, 1, 0, 2)),
    "max of sums": lambda shape, act: Net(lambda s, x: act(pooled(s.part(x), "max_pool", 2)), part=conv(shape, 3)),
    "average": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "avg_pool", 2)),
    "average, padded": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "avg_pool", 3, 2, 1, True, False)),
    "adaptive": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "adaptive_avg_pool", 3)),
    "adaptive max": after(lambda shape: conv(shape, 3), lambda y: pooled(y, "adaptive_max_pool", 3)),
    "broadcast": after(lambda shape: conv(shape, 3), lambda y: y + y.mean(-1, keepdim=True)),
    "moved": after(lambda shape: conv(shape, 3), lambda y: y.flip(-1).roll(1, 2)),
    "transposition": after(lambda shape: conv(shape, 3), lambda y: y.transpose(-1, -2)),
    "sliced": after(lambda shape: conv(shape, 3), lambda y: torch.stack([y[..., 1:], y[..., :-1]], 1).flatten(1, 2)),
    "chunked": after(lambda shape: conv(shape, 4), lambda y: y.chunk(2, 1)[0] - 0.5 * y.chunk(2, 1)[1]),
    "shuffled": after(lambda shape: conv(shape, 4), lambda y: y.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)),
    "padded": after(
        lambda shape: conv(shape, 3, padding=0), lambda y: F.pad(y, (2, 0) * (y.dim() - 2), mode="replicate")
    ),
    "upsampled": after(lambda shape: conv(shape, 2), lambda y: F.interpolate(y, scale_factor=2, mode="nearest")),
    "scaled": after(lambda shape: conv(shape, 3), lambda y: 0.5 * y),
    "shifted": after(lambda shape: conv(shape, 3), lambda y: 0.3 - y),
    "last axis": lambda shape, act: Net(lambda s, x: act(s.part(x)), part=nn.Linear(shape[-1], 4)),
    "channels last": lambda shape, act: Net(
        lambda s, x: act(s.part(channels_last(x))).movedim(-1, 1), part=nn.Linear(shape[0], 3)
    ),
    "prelu": lambda shape, act: Net(lambda s, x: s.own(s.part(x)), part=conv(shape, 3), own=nn.PReLU(3)),
}


class Random(nn.Module):
    """The steps that fit, one after the other, and a dense layer; weights follow from the seed."""

    def __init__(self, shape: Shape, steps: list[tuple[str, int]], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential()
        for name, choice in steps:
            step = STEPS[name](shape, ACTIVATIONS[choice]).eval()
            try:
                result = tuple(step(torch.rand(2, *shape)).shape[1:])
            except RuntimeError:  # torch refuses this step, such as a window that is larger than what is left
                continue
            if max(result) <= LONGEST:
                self.body.append(step)
                shape = result
        if not self.body:
            self.body.append(nn.ReLU())
        self.head = nn.Linear(torch.Size(shape).numel(), 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).flatten(1))
        return logits
