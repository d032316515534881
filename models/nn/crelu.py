"""Activations of both signs: twice the features for the look-ups of one (Shang et al., ICML 2016, arXiv 1603.05201)."""

import torch
from torch import Tensor, nn


class BothSigns(nn.Module):
    """clip(x, 0, 1) of all channels, then clip(-x, 0, 1): [B, C, ...] -> [B, 2C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        """The rising and the falling ramps."""
        return torch.cat([x.clamp(0.0, 1.0), (-x).clamp(0.0, 1.0)], dim=1)
