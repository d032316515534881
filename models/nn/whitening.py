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
    labels, so it may be public; nothing in it is trained. Each filter is its own mirror image, or minus that. So if ``pool`` divides the
    width, the maps of a mirrored image are those of the image, mirrored, and of filters of the second kind those of the other sign: two
    views come from one upload (compiler.answers.mirrored).

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
        """Takes the components of these images, uint8 [count, C, H, W], and their mirror images; outputs have mean zero, one deviation."""
        filters = self[0]
        assert isinstance(filters, nn.Conv2d) and filters.bias is not None, "as it was made"
        patches = functional.unfold(images.double() / 255, filters.kernel_size).transpose(1, 2).flatten(0, 1)
        mirror = torch.arange(patches.shape[1]).view(filters.weight.shape[1:]).flip(2).flatten()
        mean = (patches.mean(0) + patches.mean(0)[mirror]) / 2
        variances, axes = _components((patches - mean).T @ (patches - mean) / len(patches), mirror)
        deviations = variances.clamp_min(0).sqrt()[: len(filters.weight)] + FLOOR
        rows = axes[: len(filters.weight)] * (DEVIATION / deviations)[:, None]
        filters.weight.copy_(rows.reshape(filters.weight.shape))
        filters.bias.copy_(-rows @ mean)


def _components(covariance: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
    """Of values together with their mirror images, which have them in the order ``mirror``.

    Args:
        covariance: of the values, about a mean that is its own mirror image.
        mirror: [values].

    Returns:
        Variances [values], the greatest first, and components [values, values], one in each row, equal to its mirror image or to minus it.
    """
    one = torch.eye(len(covariance), dtype=covariance.dtype)
    variances, rows = [], []
    for sign in (1, -1):
        lengths, space = torch.linalg.eigh((one + sign * one[mirror]) / 2)  # a projection: lengths are 0 and 1
        basis = space[:, lengths > 0.5]
        found, axes = torch.linalg.eigh(basis.T @ covariance @ basis)
        component = (basis @ axes).T
        variances.append(found)
        rows.append((component + sign * component[:, mirror]) / 2)
    order = torch.cat(variances).argsort(descending=True)
    return torch.cat(variances)[order], torch.cat(rows)[order]
