"""Filters that begin as principal components: their outputs are uncorrelated and the leading ones carry the variance."""

import pytest
import torch
from torch import nn

from ciphershift.models.training.initial import principal_components


def smooth_images(count: int = 300) -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.rand(count, 3, 4, 4)
    return (nn.functional.interpolate(small, size=(12, 12), mode="bilinear") * 255).to(torch.uint8)


def test_outputs_are_uncorrelated_and_ordered_by_variance() -> None:
    images = smooth_images()
    module = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2, bias=False), nn.BatchNorm2d(8))
    principal_components(module, images)
    convolution = module[0]
    assert isinstance(convolution, nn.Conv2d)
    outputs = nn.functional.conv2d(
        images.float() / 255, convolution.weight
    )  # at every place, as the patches were taken
    covariance = torch.cov(outputs.transpose(0, 1).flatten(1))
    variances = covariance.diagonal()
    assert (variances[:-1] >= variances[1:]).all()
    correlations = covariance / torch.outer(variances.sqrt(), variances.sqrt()) - torch.eye(8)
    assert correlations.abs().max() < 1e-2
    assert torch.allclose(convolution.weight.flatten(1).norm(dim=1), torch.ones(8), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "says"),
    [(nn.Conv2d(3, 13, 2), "only 12 values"), (nn.Linear(3, 2), "no two-dimensional convolution")],
)
def test_what_cannot_be_whitened_is_said(module: nn.Module, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        principal_components(module, smooth_images(2))
