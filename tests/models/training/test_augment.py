"""Augmentation leaves what an image shows: shifts, mirrors and hidden squares do what their names say, within their limits."""

import torch

from ciphershift.models.training.augment import cut_out, shift_and_mirror

CALIBRATION = torch.rand(64, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def test_shifted_and_mirrored_images_are_windows_of_the_reflected_ones() -> None:
    torch.manual_seed(1)
    shift = 2
    result = shift_and_mirror(CALIBRATION, shift)
    padded = torch.nn.functional.pad(CALIBRATION, (shift,) * 4, mode="reflect")
    seen = set()
    for image, large in zip(result, padded, strict=True):
        places = {
            (top, left, mirrored)
            for top in range(2 * shift + 1)
            for left in range(2 * shift + 1)
            for mirrored in (False, True)
            for window in [large[:, top : top + 12, left : left + 10]]
            if torch.equal(image, window.flip(2) if mirrored else window)
        }
        assert len(places) == 1
        seen |= places
    assert {mirrored for _, _, mirrored in seen} == {False, True}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(2 * shift + 1))


def test_without_a_shift_images_are_only_mirrored() -> None:
    torch.manual_seed(2)
    result = shift_and_mirror(CALIBRATION, 0)
    mirrored = (result == CALIBRATION.flip(3)).flatten(1).all(1)
    assert torch.equal(result[~mirrored], CALIBRATION[~mirrored])
    assert 16 < int(mirrored.sum()) < 48


def test_a_hidden_square_is_gray_and_the_rest_stays() -> None:
    torch.manual_seed(3)
    side = 4
    hidden = cut_out(CALIBRATION, side) != CALIBRATION
    assert torch.equal(hidden.all(1), hidden.any(1)), "all channels alike"
    for square in hidden[:, 0]:
        rows, columns = square.any(1).sum(), square.any(0).sum()
        assert torch.equal(square.sum(), rows * columns)
        assert side // 2 <= min(int(rows), int(columns)) <= max(int(rows), int(columns)) <= side
