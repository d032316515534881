"""The public first part for photographs: its outputs are uncorrelated, of one deviation, and both signs are given."""

import pytest
import torch
from torch import nn

from ciphershift.models.nn.whitening import DEVIATION, FLOOR, Whitening


def smooth_images(count: int = 300) -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.rand(count, 3, 4, 4)
    return (nn.functional.interpolate(small, size=(12, 12), mode="bilinear") * 255).to(torch.uint8)


def test_outputs_are_uncorrelated_and_of_one_deviation() -> None:
    images = smooth_images()
    part = Whitening(3, maps=6, kernel=3, pool=2)
    part.look_at(images)
    filters = part[0]
    assert isinstance(filters, nn.Conv2d)
    # At the places from which patches were taken.
    outputs = nn.functional.conv2d(images.float() / 255, filters.weight, filters.bias).transpose(0, 1).flatten(1)
    deviations = outputs.std(1)
    correlations = torch.corrcoef(outputs) - torch.eye(6)
    assert correlations.abs().max() < 1e-2
    assert outputs.mean(1).abs().max() < 1e-3
    least = DEVIATION / (1 + FLOOR / (DEVIATION / filters.weight.flatten(1).norm(dim=1) - FLOOR))
    assert torch.allclose(deviations, least, rtol=1e-3)
    assert (deviations < DEVIATION).all() and deviations[0] > 0.9 * DEVIATION
    assert (deviations[:-1] >= deviations[1:] - 1e-4).all()  # the leading components, not the last ones


def test_both_signs_are_given_and_nothing_is_trained() -> None:
    images = smooth_images(20)
    part = Whitening(3, maps=6, kernel=3, pool=2)
    part.look_at(images)
    x = images.float() / 255
    with torch.no_grad():
        found, sums = part(x), part[0](x)
    assert found.shape == (20, 12, 6, 6)
    rising, falling = (nn.functional.avg_pool2d(each.clamp(0, 1), 2) for each in (sums, -sums))
    assert torch.allclose(found, torch.cat([rising, falling], dim=1))
    assert not any(parameter.requires_grad for parameter in part.parameters())


def test_more_components_than_a_patch_has_values_are_refused() -> None:
    with pytest.raises(ValueError, match="only 27 values: make the kernel larger"):
        Whitening(3, maps=28, kernel=3, pool=2)
