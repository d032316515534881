"""What a phase asks for is what a batch does: averages, loudness, remembered teachers, mirroring by turns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.shift import ShiftWeights
from ciphershift.models.training.data import Split
from ciphershift.models.training.lesson import Lesson
from ciphershift.models.training.loop import Report, fit
from ciphershift.models.training.phase import Phase

IMAGES = torch.tensor(np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8))
LABELS = torch.arange(40) % 4
PLAIN = Phase(epochs=1, learning_rate=1e-2, distortion=0.0, batch=20)
ALL = torch.arange(20)


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))


def network() -> Network:
    return convert(module().eval(), IMAGES.float() / 255)


def test_the_average_of_the_weights_ends_a_phase() -> None:
    weights = module()
    lesson = Lesson(weights, replace(PLAIN, average=0.75), IMAGES, LABELS)
    expected = [weight.detach().clone() for weight in weights.parameters()]
    for _ in range(5):
        lesson.learn(ALL, 0, 0.0)
        expected = [0.75 * old + 0.25 * new.detach() for old, new in zip(expected, weights.parameters(), strict=True)]
    moved = [float((a - b.detach()).abs().max()) for a, b in zip(expected, weights.parameters(), strict=True)]
    lesson.take_average(ALL)
    assert min(moved) > 1e-3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, weights.parameters(), strict=True))


def test_statistics_are_taken_again_for_averaged_weights_and_stand_still_afterwards() -> None:
    shift = network()
    lesson = Lesson(shift, replace(PLAIN, average=0.5), IMAGES, LABELS)
    relu: Any = next(node for _, node in shift.steps() if hasattr(node, "top"))
    relu.mean.fill_(1e6)
    lesson.freeze(torch.arange(40).repeat(100))
    assert float(relu.mean.abs().max()) < 1e4
    held = relu.mean.clone()
    shift.train()
    lesson.learn(ALL, 0, 0.0)
    assert shift.frozen and torch.equal(relu.mean, held)


def test_clipping_is_learned_until_statistics_stand_still_and_is_kept(tmp_path: Path) -> None:
    split = Split(images=IMAGES.numpy(), labels=LABELS.numpy())
    phase = replace(PLAIN, epochs=4, frozen=0.5, clips=True)
    shift, seen = network(), []

    def keep(after: Report) -> None:
        (tmp_path / f"{after.epoch}.pt").write_bytes((tmp_path / "whole.pt").read_bytes())
        seen.append(
            [weights.clip.detach().clone() for weights in shift.of_type(ShiftWeights) if weights.clip is not None]
        )

    starts = [weights.widening for weights in shift.of_type(ShiftWeights)]
    shift.quantize(True)
    fit(shift, phase, split, None, checkpoint=tmp_path / "whole.pt", seed=1, report=keep)
    assert [len(clips) for clips in seen] == [2] * 4
    assert all(not torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[3], strict=True))
    for weights, clip, start in zip(shift.of_type(ShiftWeights), seen[3], starts, strict=True):
        assert weights.clip is None
        assert weights.widening is not None and start is not None
        assert torch.allclose(weights.widening, start * clip.exp())
    for epoch in (1, 3):  # scales move after the first one, and stand still after the third
        again = network()
        again.quantize(True)
        fit(again, phase, split, None, checkpoint=tmp_path / f"{epoch}.pt", seed=1)
        pairs = zip(shift.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_clipping_is_not_learned_where_nothing_moves() -> None:
    with pytest.raises(ValueError, match="lower it, or leave clips out"):
        replace(PLAIN, frozen=1.0, clips=True)


def test_a_network_whose_training_was_interrupted_while_clipping_stood_still_goes_on(tmp_path: Path) -> None:
    split = Split(images=IMAGES.numpy(), labels=LABELS.numpy())
    shift = network()
    shift.quantize(True)

    def stop(after: Report) -> None:
        if after.epoch == 2:
            raise KeyboardInterrupt

    phase = replace(PLAIN, epochs=3, frozen=0.7, clips=True)
    with pytest.raises(KeyboardInterrupt):
        fit(shift, phase, split, None, checkpoint=tmp_path / "one.pt", seed=1, report=stop)
    fit(shift, phase, split, None, checkpoint=tmp_path / "one.pt", seed=1)
    assert all(weights.clip is None for weights in shift.of_type(ShiftWeights))
    with pytest.raises(KeyboardInterrupt):
        fit(shift, phase, split, None, checkpoint=tmp_path / "two.pt", seed=1, report=stop)
    shift.learn_clips(False)
    kept = [weights.widening for weights in shift.of_type(ShiftWeights)]
    fit(shift, PLAIN, split, None, checkpoint=tmp_path / "three.pt", seed=1)
    for weights, widening in zip(shift.of_type(ShiftWeights), kept, strict=True):
        assert weights.clip is None
        assert weights.widening is not None and widening is not None
        assert torch.equal(weights.widening, widening), "a phase without clips leaves them alone"


@pytest.mark.parametrize(("limits", "low", "high"), [((0.0, 0.0), 0.0, 0.0), ((2.0, 3.0), 2.0, 3.0)])
def test_the_noise_is_as_loud_as_the_phase_says(limits: tuple[float, float], low: float, high: float) -> None:
    shift = network()
    lesson = Lesson(shift, replace(PLAIN, loudness=limits, learning_rate=0.0), IMAGES, LABELS)
    factors = []
    for _ in range(8):
        lesson.learn(ALL, 0, 0.0)
        factors.append(float(shift.loudness))
    assert low <= min(factors) and max(factors) <= high
    shift.loudness.fill_(factors[-1])
    with torch.no_grad():
        answers = torch.stack([shift(IMAGES.float() / 255) for _ in range(4)])
    assert bool((answers.std(0).max() > 1e-3) == (high > 0)), "noise of the circuit, times its factor"


class Sided(nn.Module):
    """Says class 0 or 1 by which half of an image is brighter."""

    def forward(self, images: Tensor) -> Tensor:
        left, right = (half.mean((1, 2, 3)) for half in images.split(4, dim=3))
        return 50 * torch.stack([left - right, right - left, left * 0 - 1, left * 0 - 1], dim=1)


class Counted(nn.Module):
    """Says by which part of an image is bright what class it shows; counts the images it is asked about."""

    asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return 8 * torch.stack([images[..., row, :4].mean((1, 2)) for row in range(4)], dim=1)


def test_answers_that_nothing_is_learned_from_are_not_remembered() -> None:
    with pytest.raises(ValueError, match="give `distilled`"):
        replace(PLAIN, remembered=True)


@pytest.mark.parametrize("remembered", [False, True])
def test_a_remembered_teacher_is_asked_once_about_each_image_and_its_mirror_image(remembered: bool) -> None:
    teacher, weights = Counted(), module()
    phase = replace(PLAIN, distilled=1.0, remembered=remembered, shift=3, learning_rate=0.0)
    lesson = Lesson(weights, phase, IMAGES, LABELS, teacher=teacher)
    for epoch in range(5):
        lesson.learn(ALL + 20 * (epoch % 2), epoch, 0.0)
    assert teacher.asked == (80 if remembered else 100)


def test_a_remembered_answer_is_the_mean_of_those_to_an_image_and_its_mirror_image() -> None:
    shown, chosen = IMAGES.float() / 255, torch.arange(39, 19, -1)
    answers = [Counted()(view).softmax(1) for view in (shown, shown.flip(3))]
    weights = module()
    phase = replace(PLAIN, distilled=1.0, remembered=True, learning_rate=0.0)
    lesson = Lesson(weights, phase, IMAGES, LABELS, teacher=Counted())
    lesson.learn(chosen, 0, 0.0)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(weights(shown[chosen]), torch.stack(answers).mean(0)[chosen])
    assert float(lesson.total) == pytest.approx(float(loss), rel=1e-5)


def test_an_image_is_mirrored_in_every_second_epoch() -> None:
    bright_left = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    bright_left[..., :4] = 200
    lesson = Lesson(module(), replace(PLAIN, shift=1, alternating=True), bright_left, LABELS)
    brighter_side = []
    for epoch in range(4):
        lesson._choose(ALL, epoch)
        brighter_side.append(Sided()(lesson._changed()).argmax(1))
    first, second, third, fourth = brighter_side
    assert torch.equal(first, third) and torch.equal(second, fourth)
    assert bool((first != second).all())
    assert 0 < int(first.sum()) < len(first), "not all at once"


def test_rates_and_distortion_fall() -> None:
    phase = replace(PLAIN, distortion=0.8, fading=0.5)
    lesson = Lesson(module(), phase, IMAGES, LABELS)
    lesson.learn(ALL, 0, 0.5)
    assert lesson.optimizer.param_groups[0]["lr"] == pytest.approx(5e-3)
    assert float(lesson._distortion) == pytest.approx(0.6)


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    weights = module()
    before = [weight.detach().clone() for weight in weights.parameters()]
    reports: list[Report] = []
    few = Split(images=IMAGES.numpy()[:12], labels=LABELS.numpy()[:12])
    fit(weights, PLAIN, few, None, checkpoint=tmp_path / "c.pt", seed=0, report=reports.append)
    assert reports[0].loss > 0.5
    assert all(not torch.equal(a, b) for a, b in zip(before, weights.parameters(), strict=True))
