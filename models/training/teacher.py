"""A larger float network that teaches one of the zoo and is not kept: convolutions, max-pools and GELU (after Jordan, arXiv 2404.00498)."""

from dataclasses import dataclass

from torch import nn

from ciphershift.he_layers.layers import Shape
from ciphershift.models.nn.whitening import Whitening
from ciphershift.models.training.phase import Phase

KERNEL = 3
"""Side of the patches of its whitened first layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSpec:
    """What it consists of.

    Attributes:
        maps: whitened components of its first layer, which has both signs of each.
        widths: for each of them a convolution to so many maps, a max-pool of 2 x 2, and another convolution.
        phase: how it is trained.
    """

    maps: int
    widths: tuple[int, ...]
    phase: Phase

    def module(self, shape: Shape, classes: int) -> nn.Sequential:
        """The untrained module: [B, *shape] -> [B, classes]."""
        channels, height, width = shape
        layers: list[nn.Module] = [Whitening(channels, self.maps, KERNEL, pool=1)]
        channels = 2 * self.maps
        for maps in self.widths:
            layers += [
                nn.Conv2d(channels, maps, 3, padding=1, bias=False),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(maps),
                nn.GELU(),
            ]
            layers += [nn.Conv2d(maps, maps, 3, padding=1, bias=False), nn.BatchNorm2d(maps), nn.GELU()]
            channels, height, width = maps, height // 2, width // 2
        return nn.Sequential(
            *layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * (height // 2) * (width // 2), classes)
        )
