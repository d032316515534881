"""A small network with LayerNorm and a variance, which cannot be converted: `ciphershift check` says what to change."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvMixer(nn.Module):
    """Patches, a depthwise convolution around a shortcut, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.GELU())
        self.norm = nn.LayerNorm([32, 8, 8])
        self.mix = nn.Conv2d(32, 32, 5, padding=2, groups=32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 32, 32] -> class probabilities [B, 10]."""
        x = self.norm(self.stem(x))
        x = x + functional.gelu(self.mix(x))
        x = x / torch.var(x, dim=1, keepdim=True)
        return torch.softmax(self.head(x.mean((2, 3))), dim=1)


def convmixer() -> nn.Module:
    """The untrained network."""
    return ConvMixer()
