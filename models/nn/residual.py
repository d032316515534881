"""Layers whose result is added to what they read (He et al., arXiv 1512.03385)."""

from torch import Tensor, nn


class Residual(nn.Sequential):
    """Layers in a row, and the addition around them: [B, ...] -> [B, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        """The layers' result plus ``x``."""
        result = x
        for layer in self:
            result = layer(result)
        return result + x
