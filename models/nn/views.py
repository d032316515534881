"""Two views of an image."""

import torch
from torch import Tensor, nn


class BothViews(nn.Module):
    """The mean of a module's answers to images [B, C, H, W] and to their mirror images."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """The module's answers, averaged."""
        return torch.as_tensor(self.module(x) + self.module(x.flip(-1))) / 2
