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
    # At the places from which patches were taken, in the images and their mirror images.
    seen = torch.cat([images, images.flip(3)]).float() / 255
    outputs = nn.functional.conv2d(seen, filters.weight, filters.bias).transpose(0, 1).flatten(1)
    deviations = outputs.std(1)
    correlations = torch.corrcoef(outputs) - torch.eye(6)
    assert correlations.abs().max() < 1e-2
    assert outputs.mean(1).abs().max() < 1e-3
    least = DEVIATION / (1 + FLOOR / (DEVIATION / filters.weight.flatten(1).norm(dim=1) - FLOOR))
    assert torch.allclose(deviations, least, rtol=1e-3)
    assert (deviations < DEVIATION).all() and deviations[0] > 0.9 * DEVIATION
    assert (deviations[:-1] >= deviations[1:] - 1e-4).all()  # the leading components, not the last ones


@pytest.mark.parametrize("gray", [False, True], ids=["colors", "three equal channels"])
def test_a_mirrored_image_has_the_mirrored_maps(gray: bool) -> None:
    images = smooth_images(40)
    images = images[:, :1].expand(-1, 3, -1, -1).contiguous() if gray else images
    part = Whitening(3, maps=27, kernel=3, pool=2)
    part.look_at(images)
    with torch.no_grad():
        maps, mirrored = part(images.float() / 255), part(images.flip(3).float() / 255).flip(3)
    apart = (mirrored[:, :, None] - maps[:, None]).abs().amax((0, 3, 4))
    assert apart.min(1).values.max() < 1e-4 * maps.max()
    filters = part[0]
    assert isinstance(filters, nn.Conv2d)
    same, opposite = (
        (filters.weight - sign * filters.weight.flip(3)).abs().amax((1, 2, 3)) < 1e-5 * filters.weight.abs().max()
        for sign in (1, -1)
    )
    assert (same | opposite).all() and same.any() and opposite.any()


def test_a_patch_of_one_pixel_has_no_component_that_is_minus_its_mirror_image() -> None:
    part = Whitening(3, maps=3, kernel=1, pool=1)
    part.look_at(smooth_images(20))
    assert part[0].weight.flatten(1).norm(dim=1).min() > 1  # type: ignore[operator]


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
