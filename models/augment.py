"""Random distortions of training images: rotation, scale, shear, shift and an elastic field (Simard et al., ICDAR 2003)."""

import torch
from torch import Tensor
from torch.nn import functional

ROTATION, SCALE, SHEAR = 0.2, 0.15, 0.15
"""Greatest rotation (radians), relative scale and shear at strength 1."""
SHIFT_PIXELS = 2.0
ELASTIC = 0.05
"""Standard deviation, in half image sides, of the displacement at the nodes of the elastic field."""
NODES = 7


def distort(images: Tensor, strength: float) -> Tensor:
    """Each image [B, C, H, W] under its own random distortion; outside is black."""
    batch, side = len(images), images.shape[-1]

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(batch, *shape) * 2 - 1) * limit * strength

    angle, scale, shear = uniform(ROTATION), 1 + uniform(SCALE), uniform(SHEAR)
    affine = torch.zeros(batch, 2, 3)
    affine[:, 0, 0] = torch.cos(angle) / scale
    affine[:, 0, 1] = -torch.sin(angle) / scale + shear
    affine[:, 1, 0] = torch.sin(angle) / scale
    affine[:, 1, 1] = torch.cos(angle) / scale
    affine[:, :, 2] = uniform(2 * SHIFT_PIXELS / side, 2)
    field = torch.randn(batch, 2, NODES, NODES) * ELASTIC * strength
    bent = functional.interpolate(field, size=images.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False) + bent
    return functional.grid_sample(images, grid, align_corners=False)
