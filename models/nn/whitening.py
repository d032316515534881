"""A public first part for photographs: whitened patches of both signs, which a client computes in the clear."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.nn.crelu import BothSigns

IMAGES = 2000
"""Of the training set, whose patches are enough to look at."""
DEVIATION = 0.5
"""Of a filter's outputs, so that an activation that clips at one begins with a ramp of two standard deviations."""
FLOOR = 5e-3
"""Added to a component's deviation (pixels from 0 to 1) before its filter is divided by it: less than a step of a pixel is noise."""


class Whitening(nn.Sequential):
    """Convolution with the leading principal components of an image's patches, both signs, mean: [B, C, H, W] -> [B, 2 maps, H/p, W/p].

    The first layer of Jordan, arXiv 2404.00498, with a mean behind it. Its filters say what photographs look like and nothing of the
    labels, so it may be public; nothing in it is trained.

    Args:
        channels: of the images.
        maps: components.
        kernel: side of a patch; odd.
        pool: side of the square whose mean is taken.

    Raises:
        ValueError: a patch has fewer values than components are wanted.
    """

    def __init__(self, channels: int, maps: int, kernel: int, pool: int) -> None:
        if maps > channels * kernel**2:
            raise ValueError(
                f"{maps} components, but a patch has only {channels * kernel**2} values: make the kernel larger"
            )
        filters = nn.Conv2d(channels, maps, kernel, padding=kernel // 2, padding_mode="reflect")
        super().__init__(filters.requires_grad_(False), BothSigns(), nn.AvgPool2d(pool))

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Takes the components of these images, uint8 [count, C, H, W]; outputs have mean zero and one deviation."""
        filters = self[0]
        assert isinstance(filters, nn.Conv2d) and filters.bias is not None, "as it was made"
        patches = functional.unfold(images.float() / 255, filters.kernel_size).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        variances, axes = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        deviations = variances.clamp_min(0).sqrt().flip(0)[: len(filters.weight)] + FLOOR
        rows = axes.flip(1).T[: len(filters.weight)] * (DEVIATION / deviations)[:, None]
        filters.weight.copy_(rows.reshape(filters.weight.shape))
        filters.bias.copy_(-rows @ mean)
