"""Small networks that between them use every operation that can be converted."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """Biases, no batch norm; max-pool of any kernel, with padding; ReLU before the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Identity(), nn.MaxPool2d(3, 2, 1), nn.Dropout2d(0.1)
        )
        self.hidden = nn.Linear(5 * 3 * 3, 12)
        self.logits = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.features(x), 1)
        return self.logits(functional.dropout(functional.relu(self.hidden(x)), 0.2, self.training))


class Residual(nn.Module):
    """Two blocks, one with a convolution on its shortcut; two activations added; global average; batch norm before and after a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()
        )
        self.a = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.down = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6))
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.tail = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = functional.relu(x + self.b(self.a(x)))
        x = functional.relu(self.down(x) + self.shortcut(x))
        x = x + self.tail(x)
        return self.fc(self.pool(x).flatten(1))


class Branches(nn.Module):
    """Concatenation, channel shuffle, grouped and depthwise convolutions, ReLU6, hardtanh, average pools with padding, batch norm 1d."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.ReLU6())
        self.right = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Hardtanh())
        self.shuffle = nn.ChannelShuffle(2)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.average = nn.AvgPool2d(3, 2, 1)
        self.dense = nn.Sequential(nn.Linear(8 * 3 * 3, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffle(torch.cat([self.left(x), self.right(x)], dim=1))
        x = functional.relu6(self.norm(self.grouped(x)))
        x = self.average(self.depthwise(x))
        return self.dense(x.view(x.size(0), -1))


def settled(maker: Callable[[], nn.Module]) -> nn.Module:
    """With batch norms that have seen something and weights of their own, and with classes that are about as frequent as each other."""
    torch.manual_seed(0)
    module = maker()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
    module.train()
    with torch.no_grad():
        for _ in range(30):
            module(torch.rand(64, 3, 12, 12))
        head = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
        head.bias.sub_(module.eval()(torch.rand(200, 3, 12, 12)).mean(0))
    return module
