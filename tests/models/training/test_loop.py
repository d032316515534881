"""Training on real digits: it learns, noise and rounding included, and an interrupted run ends like one that was not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from ciphershift.errors import UnreadableDataError
from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.network import Network
from ciphershift.models.training import data
from ciphershift.models.training.data import Dataset
from ciphershift.models.training.loop import Report, accuracy, fine_tune, logits
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.recipes import RECIPES, ConvSpec, DenseSpec, Recipe

FAST = RECIPES["mnist-fast"]
assert isinstance(FAST, Recipe)
RECIPE = replace(FAST, blocks=(ConvSpec(maps=4, kernel=6, stride=3, padding=1), DenseSpec(units=32)))
LEARNING = Phase(epochs=6, learning_rate=1e-2, frozen=0.2, batch=20)
SHORT = Phase(epochs=3, learning_rate=1e-2, frozen=0.4, batch=50)


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    try:
        return data.load("mnist")
    except UnreadableDataError as error:
        pytest.skip(f"no MNIST here: {error}")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # batches this small are slower on two


class StoppedError(Exception):
    pass


def float_module(mnist: Dataset) -> nn.Module:
    """Trained for a moment only."""
    torch.manual_seed(0)
    module = RECIPE.module()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    split = torch.tensor(mnist.train.images[:600]), torch.tensor(mnist.train.labels[:600])
    for images, labels in zip(*(part.split(50) for part in split), strict=True):
        loss = functional.cross_entropy(module(images / 255), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


class AlwaysThree(nn.Module):
    """A teacher who is sure of himself."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * functional.one_hot(torch.full((len(images),), 3), 10).float()


def trained(
    mnist: Dataset,
    checkpoint: Path,
    phase: Phase,
    *,
    images: int,
    stop_after: int | None = None,
    teacher: nn.Module | None = None,
) -> Network:
    def report(after: Report) -> None:
        if after.epoch == stop_after:
            raise StoppedError

    torch.manual_seed(0)
    network = convert(float_module(mnist), torch.tensor(mnist.train.images[:100]) / 255)
    fine_tune(
        network,
        mnist.train.part(0, images),
        mnist.train.part(images, images + 100),
        phase=phase,
        checkpoint=checkpoint,
        seed=0,
        teacher=teacher,
        report=report,
    )
    return network


def test_a_noisy_shift_network_learns_from_few_images(mnist: Dataset, tmp_path: Path) -> None:
    held_out = mnist.train.part(700, 1200)
    untrained = trained(mnist, tmp_path / "none.pt", replace(LEARNING, epochs=0), images=600)
    before = accuracy(untrained, held_out)
    assert before < 0.7
    after = accuracy(trained(mnist, tmp_path / "full.pt", LEARNING, images=600), held_out)
    assert after > max(0.7, before + 0.1), (before, after)


def test_an_interrupted_training_ends_the_same(mnist: Dataset, tmp_path: Path) -> None:
    whole = trained(mnist, tmp_path / "whole.pt", SHORT, images=200)
    with pytest.raises(StoppedError):
        trained(mnist, tmp_path / "cut.pt", SHORT, images=200, stop_after=2)
    resumed = trained(mnist, tmp_path / "cut.pt", SHORT, images=200)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_taught_network_answers_as_its_teacher(mnist: Dataset, tmp_path: Path) -> None:
    def threes(phase: Phase, teacher: nn.Module | None) -> float:
        network = trained(mnist, tmp_path / f"{phase.distilled}.pt", phase, images=400, teacher=teacher)
        return float((logits(network, mnist.train.images[700:900]).argmax(1) == 3).mean())

    alone = replace(LEARNING, epochs=2)
    assert threes(alone, None) < 0.3
    assert threes(replace(alone, distilled=0.5), AlwaysThree()) > 0.6
    with pytest.raises(ValueError, match="needs a teacher"):
        trained(mnist, tmp_path / "none.pt", replace(alone, distilled=0.5), images=100)


def test_damaged_data_are_refused(mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for file in mnist.source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    monkeypatch.setenv("CIPHERSHIFT_DATA", str(tmp_path))
    with pytest.raises(UnreadableDataError, match="SHA-256"):
        data.load("mnist")


def test_the_first_test_digits_are_the_known_ones(mnist: Dataset) -> None:
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mnist.test.images.shape == (10_000, 1, 28, 28)
