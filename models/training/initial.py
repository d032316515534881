"""Weights that a training begins with, taken from the images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGES = 2000
"""Whose patches are looked at."""


@torch.no_grad()
def principal_components(module: nn.Module, images: Tensor) -> None:
    """The filters of a module's first convolution become the leading principal components of the images' patches, each of length one.

    As in Jordan, arXiv 2404.00498, whose filters have both signs; an activation of both signs does that here. A batch norm must follow:
    it brings the outputs to one variance, which is the whitening.

    Args:
        module: with a convolution that has at most as many filters as its patches have values.
        images: uint8 [count, C, H, W], of the training set.

    Raises:
        ValueError: there is no convolution, or it has more filters.
    """
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        raise ValueError("nothing to whiten: the module has no two-dimensional convolution")
    filters, _, height, width = first.weight.shape
    patches = functional.unfold(images[:IMAGES].float() / 255, (height, width)).transpose(1, 2).flatten(0, 1)
    if filters > patches.shape[1]:
        raise ValueError(f"{filters} filters, but a patch has only {patches.shape[1]} values: make the kernel larger")
    centered = patches - patches.mean(0)
    _, axes = torch.linalg.eigh(centered.T @ centered / len(centered))
    first.weight.copy_(axes.flip(1).T[:filters].reshape(first.weight.shape))
