"""Random changes of training images that leave what they show the same.

For written figures ``distort``: rotation, scale, shear, shift and an elastic field (Simard et al., ICDAR 2003). For photographs
``shift_and_mirror`` (Krizhevsky et al. 2012) and ``cut_out`` (DeVries and Taylor 2017, arXiv 1708.04552).
"""

import torch
from torch import Tensor
from torch.nn import functional

ROTATION, SCALE, SHEAR = 0.2, 0.15, 0.15
"""Greatest rotation (radians), relative scale and shear at strength 1."""
SHIFT_PIXELS = 2.0
ELASTIC = 0.05
"""Standard deviation, in half image sides, of the displacement at the nodes of the elastic field."""
NODES = 7


def distort(images: Tensor, strength: float | Tensor) -> Tensor:
    """Each image [B, C, H, W] under its own random distortion; outside is black."""
    batch, side, device = len(images), images.shape[-1], images.device

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(batch, *shape, device=device) * 2 - 1) * limit * strength

    angle, scale, shear = uniform(ROTATION), 1 + uniform(SCALE), uniform(SHEAR)
    affine = torch.zeros(batch, 2, 3, device=device)
    affine[:, 0, 0] = torch.cos(angle) / scale
    affine[:, 0, 1] = -torch.sin(angle) / scale + shear
    affine[:, 1, 0] = torch.sin(angle) / scale
    affine[:, 1, 1] = torch.cos(angle) / scale
    affine[:, :, 2] = uniform(2 * SHIFT_PIXELS / side, 2)
    field = torch.randn(batch, 2, NODES, NODES, device=device) * ELASTIC * strength
    bent = functional.interpolate(field, size=images.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False) + bent
    return functional.grid_sample(images, grid, align_corners=False)


def shift_and_mirror(images: Tensor, pixels: int, mirrored: Tensor | None = None) -> Tensor:
    """Each image [B, C, H, W] shifted by up to ``pixels`` both ways, its border continued by reflection, and some mirrored.

    Args:
        images: a batch.
        pixels: greatest shift.
        mirrored: which ones, bool [B]; without it each one with probability 1/2.
    """
    batch, _, height, width = images.shape
    device = images.device
    padded = functional.pad(images, (pixels,) * 4, mode="reflect") if pixels else images
    top, left = (torch.randint(2 * pixels + 1, (batch, 1), device=device) for _ in range(2))
    columns = torch.arange(width, device=device).repeat(batch, 1)
    flips = torch.rand(batch, 1, device=device) < 0.5 if mirrored is None else mirrored[:, None]
    columns = torch.where(flips, columns.flip(1), columns) + left
    rows = torch.arange(height, device=device) + top
    each = torch.arange(batch, device=device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(images: Tensor, side: int) -> Tensor:
    """Each image [B, C, H, W] with one square of ``side`` pixels, partly outside perhaps, of mean gray."""
    batch, _, height, width = images.shape
    inside = []
    for size in (height, width):
        start = torch.randint(1 - side // 2, size - side // 2 + 1, (batch, 1), device=images.device)
        place = torch.arange(size, device=images.device)
        inside.append((place >= start) & (place < start + side))
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.5)
