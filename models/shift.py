"""Linear layers whose weights are 0 or +-2^e, trained with the straight-through estimator.

The layer keeps real weights and uses their nearest value in {0, +-1, +-2, +-4, +-8} after dividing by a scale: the standard deviation of
the channel's weights times a constant for hidden layers, whose outputs are normalised afterwards, so that the scale has no meaning there.
The gradient passes the rounding unchanged (Bengio et al. 2013, arXiv 1308.3432; power-of-two weights: Elhoushi et al., arXiv 1905.13298).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

UNITS_PER_STD = 2.5
"""Integer units given to one standard deviation of the weights: 8, the greatest, then lies at 3.2 of them."""


def to_powers_of_two(weights: Tensor) -> Tensor:
    """Nearest of {0, +-1, +-2, +-4, +-8} to each weight."""
    size = weights.abs()
    nearest = (size >= 0.5).float() + (size >= 1.5).float() + 2 * (size >= 3.0).float() + 4 * (size >= 6.0).float()
    return torch.copysign(nearest, weights)


class ShiftWeights(nn.Module):
    """Mixin: real ``weight`` and the integer weights made from it."""

    weight: nn.Parameter

    def __init__(self, *, per_channel: bool) -> None:
        """Args: per_channel: one scale for each output channel, otherwise one for the whole layer."""
        super().__init__()
        self.per_channel = per_channel
        self.quantised = False

    def scale(self) -> Tensor:
        """Real value of one integer unit, shape [O, 1, ...] or [1, 1, ...]."""
        weight = self.weight.detach()
        axes = tuple(range(1, weight.dim())) if self.per_channel else tuple(range(weight.dim()))
        return weight.pow(2).mean(axes, keepdim=True).sqrt().clamp_min(1e-8) / UNITS_PER_STD

    def integer_weight(self) -> Tensor:
        """The weights in integer units: exact powers of two once ``quantised``, the unrounded ones before."""
        scaled = self.weight / self.scale()
        if not self.quantised:
            return scaled
        return scaled + (to_powers_of_two(scaled) - scaled).detach()


class ShiftConv2d(ShiftWeights):
    """Convolution without bias; returns sums in integer units of its weights."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__(per_channel=True)
        self.stride, self.padding, self.groups = stride, padding, groups
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(outputs, inputs // groups, kernel, kernel)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H', W']."""
        return functional.conv2d(x, self.integer_weight(), None, self.stride, self.padding, 1, self.groups)


class ShiftLinear(ShiftWeights):
    """Dense layer without bias; returns sums in integer units of its weights."""

    def __init__(self, inputs: int, outputs: int, *, per_channel: bool = True) -> None:
        super().__init__(per_channel=per_channel)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(outputs, inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] -> [B, O]."""
        return functional.linear(x, self.integer_weight())
