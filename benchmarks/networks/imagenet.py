"""Three networks of ImageNet's time, for images of 224 x 224, as SHE's table has them; untrained, since only their cost is asked for.

ShuffleNet has an activation after its depthwise convolution, which the original lacks: two linear layers in a row are not evaluated here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 1000
SIDE = 224


def alexnet() -> nn.Module:
    """One column (Krizhevsky 2014, arXiv 1404.5997)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, 1, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, CLASSES),
    )


class Residual(nn.Module):
    """Two convolutions around a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


def resnet18() -> nn.Module:
    """Eighteen layers."""
    blocks, inputs = [], 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, CLASSES),
    )


class ShuffleUnit(nn.Module):
    """Grouped 1 x 1, shuffle, depthwise 3 x 3, grouped 1 x 1 (Zhang et al., arXiv 1707.01083)."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        made = outputs - inputs if stride > 1 else outputs
        middle = outputs // 4
        self.stride = stride
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, middle, 1, groups=first_groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.ChannelShuffle(groups),
            nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, made, 1, groups=groups, bias=False),
            nn.BatchNorm2d(made),
        )
        self.pool = nn.AvgPool2d(3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H / stride, W / stride]."""
        if self.stride > 1:
            return torch.cat([self.pool(x), functional.relu(self.branch(x))], dim=1)
        return functional.relu(self.branch(x) + x)


def shufflenet() -> nn.Module:
    """Three groups, width 1."""
    groups, units, inputs = 3, [], 24
    for outputs, repeats in ((240, 4), (480, 8), (960, 4)):
        for number in range(repeats):
            first = 1 if inputs == 24 else groups
            units.append(ShuffleUnit(inputs, outputs, 2 if number == 0 else 1, groups, first))
            inputs = outputs
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *units,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(960, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"alexnet": alexnet, "resnet18": resnet18, "shufflenet": shufflenet}
