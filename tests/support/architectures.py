"""Thirty-one common architectures, written anew on reduced sizes: what makes each what it is, with a few channels and blocks.

Each is made by a function without arguments; ``ALL`` has its name, the shape of its inputs and the paper that it is from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.models.compiler.convert import before_rounding
from ciphershift.models.compiler.ir import TraceResult
from ciphershift.models.compiler.simplify import simplify
from ciphershift.models.compiler.trace import Trace, trace
from ciphershift.models.cost_report import lookups

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One of them."""

    name: str
    source: str
    shape: Shape
    make: Callable[[], nn.Module]


class Net(nn.Module):
    """Parts, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.compute = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, x)


def norm_relu(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act()] if act else []))


def head(channels: int, classes: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 6, 3),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 12),
        nn.Tanh(),
        nn.Linear(12, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
    )


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32, 12),
        nn.ReLU(inplace=True),
        nn.Linear(12, 4),
    )


def vgg11() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for width in (4, "M", 6, "M", 8, 8, "M"):
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 4, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 4))


def nin() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 6),
        norm_relu(6, 6, 1),
        nn.MaxPool2d(2),
        norm_relu(6, 8),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Residual(nn.Module):
    """A body and a shortcut."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, last: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.last = body, shortcut or nn.Identity(), last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.body(x) + self.shortcut(x))
        return result


def basic(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    shortcut = None if inputs == outputs and stride == 1 else norm_relu(inputs, outputs, 1, stride, act=None)
    return Residual(
        nn.Sequential(norm_relu(inputs, outputs, 3, stride), norm_relu(outputs, outputs, act=None)), shortcut, nn.ReLU()
    )


def bottleneck(inputs: int, middle: int, outputs: int, stride: int = 1) -> nn.Module:
    shortcut = None if inputs == outputs and stride == 1 else norm_relu(inputs, outputs, 1, stride, act=None)
    body = nn.Sequential(
        norm_relu(inputs, middle, 1), norm_relu(middle, middle, 3, stride), norm_relu(middle, outputs, 1, act=None)
    )
    return Residual(body, shortcut, nn.ReLU())


def resnet18() -> nn.Module:
    return nn.Sequential(norm_relu(3, 4, 3, 2), nn.MaxPool2d(3, 2, 1), basic(4, 4), basic(4, 6, 2), head(6))


def resnet20() -> nn.Module:
    return nn.Sequential(norm_relu(3, 4), basic(4, 4), basic(4, 6, 2), basic(6, 8, 2), head(8))


def resnet50() -> nn.Module:
    return nn.Sequential(norm_relu(3, 4, 3, 2), bottleneck(4, 3, 8), bottleneck(8, 4, 12, 2), head(12))


def before(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def wide_resnet() -> nn.Module:
    body = nn.Sequential(
        before(6),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        before(6),
        nn.Dropout(0.3),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
    )
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), Residual(body), before(6), head(6))


class Dense(nn.Module):
    """Joins what it makes to what it was given."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            before(inputs),
            nn.Conv2d(inputs, 6, 1, bias=False),
            before(6),
            nn.Conv2d(6, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2),
        Dense(4, 2),
        Dense(6, 2),
        before(8),
        nn.Conv2d(8, 4, 1, bias=False),
        nn.AvgPool2d(2),
        Dense(4, 2),
        before(6),
        head(6),
    )


def inception(x_in: int) -> nn.Module:
    return Net(
        lambda s, x: torch.cat([s.a(x), s.b(x), s.c(x), s.d(x)], 1),
        a=norm_relu(x_in, 2, 1),
        b=nn.Sequential(norm_relu(x_in, 2, 1), norm_relu(2, 3)),
        c=nn.Sequential(norm_relu(x_in, 2, 1), norm_relu(2, 2, 5)),
        d=nn.Sequential(nn.MaxPool2d(3, 1, 1), norm_relu(x_in, 2, 1)),
    )


def googlenet() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2), inception(4), nn.MaxPool2d(3, 2, ceil_mode=True), inception(9), nn.Dropout(), head(9)
    )


def fire(inputs: int, squeeze: int, expand: int) -> nn.Module:
    return Net(
        lambda s, x: (lambda y: torch.cat([F.relu(s.one(y)), F.relu(s.three(y))], 1))(F.relu(s.squeeze(x))),
        squeeze=nn.Conv2d(inputs, squeeze, 1),
        one=nn.Conv2d(squeeze, expand, 1),
        three=nn.Conv2d(squeeze, expand, 3, padding=1),
    )


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        fire(6, 2, 4),
        fire(8, 3, 4),
        nn.Dropout(),
        nn.Conv2d(8, 4, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def mobilenet_v1() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2),
        norm_relu(4, 4, groups=4),
        norm_relu(4, 8, 1),
        norm_relu(8, 8, 3, 2, groups=8),
        norm_relu(8, 8, 1),
        head(8),
    )


def inverted(inputs: int, middle: int, outputs: int, stride: int, act: Any, gate: nn.Module | None = None) -> nn.Module:
    body = nn.Sequential(
        norm_relu(inputs, middle, 1, act=act),
        norm_relu(middle, middle, 3, stride, middle, act),
        *([gate] if gate else []),
        norm_relu(middle, outputs, 1, act=None),
    )
    return Residual(body) if inputs == outputs and stride == 1 else body


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2, act=nn.ReLU6),
        inverted(4, 8, 4, 1, nn.ReLU6),
        inverted(4, 8, 6, 2, nn.ReLU6),
        norm_relu(6, 8, 1, act=nn.ReLU6),
        head(8),
    )


def excite(channels: int, inner: Any, gate: Any) -> nn.Module:
    scale = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 3, 1), inner(), nn.Conv2d(3, channels, 1), gate()
    )
    return Net(lambda s, x: x * s.scale(x), scale=scale)


def mobilenet_v3() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2, act=nn.Hardswish),
        inverted(4, 6, 4, 1, nn.Hardswish, excite(6, nn.ReLU, nn.Hardsigmoid)),
        norm_relu(4, 8, 1, act=nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 8),
        nn.Hardswish(),
        nn.Linear(8, 4),
    )


def efficientnet() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2, act=nn.SiLU),
        inverted(4, 6, 4, 1, nn.SiLU, excite(6, nn.SiLU, nn.Sigmoid)),
        norm_relu(4, 8, 1, act=nn.SiLU),
        head(8),
    )


def shuffle_unit(channels: int) -> nn.Module:
    half = channels // 2
    branch = nn.Sequential(
        norm_relu(half, half, 1), norm_relu(half, half, groups=half, act=None), norm_relu(half, half, 1)
    )

    def forward(self: Any, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        joined = torch.cat([kept, self.branch(worked)], 1)
        n, c, h, w = joined.shape
        return joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Net(forward, branch=branch)


def shufflenet_v2() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 6, 3, 2), nn.MaxPool2d(3, 2, 1), shuffle_unit(6), shuffle_unit(6), norm_relu(6, 8, 1), head(8)
    )


def mcunet() -> nn.Module:
    return nn.Sequential(
        norm_relu(3, 4, 3, 2, act=nn.ReLU6),
        norm_relu(4, 4, groups=4, act=nn.ReLU6),
        norm_relu(4, 3, 1, act=None),
        inverted(3, 9, 3, 1, nn.ReLU6),
        inverted(3, 6, 4, 2, nn.ReLU6),
        head(4),
    )


def se_resnet() -> nn.Module:
    body = nn.Sequential(norm_relu(4, 4), norm_relu(4, 4, act=nn.ReLU), excite(4, nn.ReLU, nn.Sigmoid))
    return nn.Sequential(norm_relu(3, 4, 3, 2), Residual(body, last=nn.ReLU()), head(4))


class RepVGGBlock(nn.Module):
    """Three branches in training, which could be one convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.three, self.one = norm_relu(channels, channels, act=None), norm_relu(channels, channels, 1, act=None)
        self.identity = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.three(x) + self.one(x) + self.identity(x))


def repvgg() -> nn.Module:
    return nn.Sequential(norm_relu(3, 4, 3, 2), RepVGGBlock(4), RepVGGBlock(4), head(4))


def convnext() -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(6, 6, 7, padding=3, groups=6), nn.GroupNorm(1, 6), nn.Conv2d(6, 12, 1), nn.GELU(), nn.Conv2d(12, 6, 1)
    )
    return nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), Residual(body), head(6))


class Temporal(nn.Module):
    """A causal, dilated convolution with weight norm."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(inputs, outputs, 3, padding=2 * dilation, dilation=dilation)
        )
        self.shortcut = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.relu(self.conv(x)[..., : -2 * self.dilation]) + self.shortcut(x))


def tcn() -> nn.Module:
    return Net(
        lambda s, x: s.head(s.body(x)[..., -1]),
        body=nn.Sequential(Temporal(2, 4, 1), Temporal(4, 4, 2)),
        head=nn.Linear(4, 3),
    )


def ecg() -> nn.Module:
    body = nn.Sequential(
        nn.Conv1d(4, 4, 7, padding=3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Conv1d(4, 4, 7, padding=3),
        nn.BatchNorm1d(4),
    )
    return nn.Sequential(
        nn.Conv1d(1, 4, 7, stride=2, padding=3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        Residual(body, last=nn.ReLU()),
        nn.MaxPool1d(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(), nn.Linear(12, 3), nn.LogSoftmax(1)
    )


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, stride=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 2, stride=2),
        nn.Sigmoid(),
    )


def unet() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        high = self.down(x)
        low = self.middle(F.max_pool2d(high, 2))
        joined: Tensor = self.end(self.up(torch.cat([high, self.wide(low)], 1)))
        return joined

    return Net(
        forward,
        down=norm_relu(1, 4),
        middle=norm_relu(4, 6),
        wide=nn.Sequential(nn.ConvTranspose2d(6, 4, 2, stride=2), nn.ReLU()),
        up=norm_relu(8, 4),
        end=nn.Conv2d(4, 2, 1),
    )


def siamese() -> nn.Module:
    """Both images as channels of one input."""
    return Net(
        lambda s, x: s.head(torch.abs(s.body(x[:, :1]) - s.body(x[:, 1:]))),
        body=nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6), nn.ReLU()),
        head=nn.Linear(6, 1),
    )


def keyword() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, (4, 3), stride=(2, 1), padding=(1, 1)),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        norm_relu(6, 6, groups=6),
        norm_relu(6, 6, 1),
        nn.Dropout(0.2),
        head(6),
    )


def multi_task() -> nn.Module:
    return Net(
        lambda s, x: (lambda y: {"kind": s.kind(y), "size": s.size(y)})(s.body(x)),
        body=nn.Sequential(norm_relu(1, 4, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        kind=nn.Linear(16, 3),
        size=nn.Linear(16, 1),
    )


def capsnet() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        u = self.caps(F.relu(self.conv(x))).view(x.size(0), 8, -1)
        squared = (u**2).sum(1, keepdim=True)
        v: Tensor = (u * squared / (1 + squared) / squared.sqrt()).sum(2)
        return v.norm(dim=-1, keepdim=True)

    return Net(forward, conv=nn.Conv2d(1, 4, 3), caps=nn.Conv2d(4, 8, 3, stride=2))


def vit() -> nn.Module:
    return Net(
        lambda s, x: s.head(s.body(s.patch(x).flatten(2).transpose(1, 2)).mean(1)),
        patch=nn.Conv2d(3, 8, 4, stride=4),
        body=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
        head=nn.Linear(8, 4),
    )


def lstm() -> nn.Module:
    return Net(lambda s, x: s.head(s.body(x)[0][:, -1]), body=nn.LSTM(3, 6, batch_first=True), head=nn.Linear(6, 3))


RGB, GRAY = (3, 16, 16), (1, 8, 8)
ALL = [
    Architecture(name=name, source=source, shape=shape, make=make)
    for name, source, shape, make in (
        ("LeNet-5", "LeCun et al. 1998", (1, 12, 12), lenet),
        ("AlexNet", "Krizhevsky et al. 2012", RGB, alexnet),
        ("Network in network", "Lin et al. 2013", RGB, nin),
        ("VGG-11", "Simonyan and Zisserman 2014", RGB, vgg11),
        ("GoogLeNet", "Szegedy et al. 2014", RGB, googlenet),
        ("ResNet-18", "He et al. 2015", RGB, resnet18),
        ("ResNet-20", "He et al. 2015", RGB, resnet20),
        ("ResNet-50", "He et al. 2015", RGB, resnet50),
        ("WideResNet", "Zagoruyko and Komodakis 2016", RGB, wide_resnet),
        ("DenseNet-121", "Huang et al. 2016", RGB, densenet),
        ("SqueezeNet", "Iandola et al. 2016", RGB, squeezenet),
        ("MobileNet v1", "Howard et al. 2017", RGB, mobilenet_v1),
        ("MobileNet v2", "Sandler et al. 2018", RGB, mobilenet_v2),
        ("MobileNet v3", "Howard et al. 2019", RGB, mobilenet_v3),
        ("EfficientNet-B0", "Tan and Le 2019", RGB, efficientnet),
        ("ShuffleNet v2", "Ma et al. 2018", RGB, shufflenet_v2),
        ("SE-ResNet", "Hu et al. 2017", RGB, se_resnet),
        ("RepVGG", "Ding et al. 2021", RGB, repvgg),
        ("MCUNet-like", "Lin et al. 2020", RGB, mcunet),
        ("ConvNeXt-like", "Liu et al. 2022", RGB, convnext),
        ("DS-CNN for keywords", "Zhang et al. 2017", (1, 12, 8), keyword),
        ("TCN", "Bai et al. 2018", (2, 12), tcn),
        ("1-D ResNet for ECG", "Rajpurkar et al. 2017", (1, 32), ecg),
        ("MLP with batch norm", "–", (10,), mlp),
        ("Autoencoder", "–", GRAY, autoencoder),
        ("U-Net", "Ronneberger et al. 2015", GRAY, unet),
        ("Siamese head", "Koch et al. 2015", (2, 8, 8), siamese),
        ("Two tasks", "–", GRAY, multi_task),
        ("CapsNet", "Sabour et al. 2017", GRAY, capsnet),
        ("ViT", "Dosovitskiy et al. 2020", RGB, vit),
        ("LSTM", "Hochreiter and Schmidhuber 1997", (8, 3), lstm),
    )
]


def samples(architecture: Architecture, count: int, seed: int = 1) -> Tensor:
    """Noise from 0 to 1, of another brightness in each sample, as images have it: averages over a map vary, too."""
    random = torch.Generator().manual_seed(seed)
    bright = torch.rand(count, *[1] * len(architecture.shape), generator=random)
    return torch.rand(count, *architecture.shape, generator=random) * (0.2 + 0.8 * bright)


def settled(architecture: Architecture) -> nn.Module:
    """In evaluation mode, with weights that carry what varies on to the end, as trained ones do, and norms that have seen something."""
    torch.manual_seed(0)
    module = architecture.make()
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for seed in range(3 if norms else 0):
            module.train()(samples(architecture, 64, seed))
    return module.eval()


CALIBRATION = 96
"""Samples that an architecture is calibrated and compared on."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
MARKS = ("<!-- table: written by python -m tests.support.architectures -->", "<!-- end of table -->")


def row(architecture: Architecture) -> str:
    """What conversion says of it: that every step is the module's, and the look-ups; or what is wrong, where, and what to do.

    Raises:
        NotEquivalentError, BadCalibrationError: a step is not the module's, or was given nearly the same for all samples.
    """
    module = settled(architecture)
    read = trace(module, architecture.shape)
    simple = simplify(read.result, architecture.shape) if isinstance(read, Trace) else TraceResult(findings=read)
    if simple.findings:
        first = simple.findings[0]
        said = f"{len(simple.findings)} findings, the first: {first}"
    else:
        returned = ", ".join(f"{part.name} {part.shape}".strip() for part in simple.parts)
        before_rounding(module, samples(architecture, CALIBRATION))
        said = (
            f"equal before rounding; {sum(lookups(simple.operations, architecture.shape))} look-ups, returns {returned}"
        )
    size = "x".join(map(str, architecture.shape))
    return f"| {architecture.name} | {architecture.source} | {size} | {said.replace('|', chr(92) + '|')} |"


def table() -> str:
    """All of them, as Markdown."""
    titles = ["| architecture | source | input here | what conversion says |", "| --- | --- | --- | --- |"]
    return "\n".join([*titles, *map(row, ALL)])


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{table()}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
