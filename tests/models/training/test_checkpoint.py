"""A checkpoint goes on with the training that wrote it, and with no other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.errors import BadShapeError, StaleCheckpointError
from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.network import Network
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import Report, fit
from ciphershift.models.training.phase import Phase

RNG = np.random.default_rng(0)
SPLIT = Split(images=RNG.integers(0, 256, (40, 1, 6, 6), dtype=np.uint8), labels=np.arange(40) % 4)
PIXELS = torch.tensor(SPLIT.images) / 255
PHASE = Phase(epochs=2, learning_rate=1e-2, distortion=0.0, batch=20)
TAUGHT = replace(PHASE, distilled=0.5)


def module(seed: int = 0, outputs: int = 4, activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(seed)
    middle = nn.BatchNorm1d(8), activation or nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), *middle, nn.Linear(8, outputs))


def converted(seed: int = 0, outputs: int = 4, activation: nn.Module | None = None, **choices: Any) -> Network:
    return convert(module(seed, outputs, activation).eval(), PIXELS, **choices)


def stop(after: Report) -> None:
    if after.epoch == 1:
        raise KeyboardInterrupt


OTHERS: dict[str, Callable[[], tuple[nn.Module, Phase, Split, int, nn.Module | None]]] = {
    "phase": lambda: (converted(), replace(PHASE, learning_rate=2e-2), SPLIT, 0, None),
    "seed": lambda: (converted(), PHASE, SPLIT, 1, None),
    "images": lambda: (converted(), PHASE, Split(images=SPLIT.images[::-1].copy(), labels=SPLIT.labels), 0, None),
    "labels": lambda: (converted(), PHASE, Split(images=SPLIT.images, labels=3 - SPLIT.labels), 0, None),
    "levels": lambda: (converted(levels=15), PHASE, SPLIT, 0, None),
    "exponents": lambda: (converted(exponents=3), PHASE, SPLIT, 0, None),
    "parameter set": lambda: (converted(params="FAST_N512_BLOCK3"), PHASE, SPLIT, 0, None),
    "weights before training": lambda: (converted(seed=1), PHASE, SPLIT, 0, None),
    "structure": lambda: (converted(activation=nn.Tanh()), PHASE, SPLIT, 0, None),
    "teacher": lambda: (converted(), PHASE, SPLIT, 0, module(seed=2)),
}


@pytest.mark.parametrize("stopped", [True, False], ids=["interrupted", "finished"])
@pytest.mark.parametrize("what", OTHERS)
def test_another_training_does_not_go_on_from_it(what: str, stopped: bool, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    try:
        fit(converted(), PHASE, SPLIT, None, checkpoint=path, seed=0, report=stop if stopped else lambda _: None)
    except KeyboardInterrupt:
        assert stopped
    network, phase, split, seed, teacher = OTHERS[what]()
    with pytest.raises(StaleCheckpointError, match=rf"c\.pt is of another training, with other .*{what}.*: delete it"):
        fit(network, phase, split, None, checkpoint=path, seed=seed, teacher=teacher)
    path.unlink()
    fit(network, phase, split, None, checkpoint=path, seed=seed, teacher=teacher)


def test_a_network_that_was_interrupted_goes_on_itself_or_made_again(tmp_path: Path) -> None:
    whole = converted()
    fit(whole, PHASE, SPLIT, None, checkpoint=tmp_path / "whole.pt", seed=0)
    for name in ("itself", "again"):
        network = converted()
        with pytest.raises(KeyboardInterrupt):
            fit(network, PHASE, SPLIT, None, checkpoint=tmp_path / f"{name}.pt", seed=0, report=stop)
        network = network if name == "itself" else converted()
        fit(network, PHASE, SPLIT, None, checkpoint=tmp_path / f"{name}.pt", seed=0)
        for one, other in zip(whole.state_dict().values(), network.state_dict().values(), strict=True):
            assert torch.equal(one, other)


def test_buffers_tell_networks_apart_also_where_they_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"

    def marked(buffer: list[float]) -> nn.Module:
        network = module()
        network.register_buffer("limits", torch.tensor(buffer))
        return network

    with pytest.raises(KeyboardInterrupt):
        fit(marked([1.0, torch.inf, torch.nan]), PHASE, SPLIT, None, checkpoint=path, seed=0, report=stop)
    for others in ([2.0, 3.0, torch.nan], [2.0, torch.inf, 1.0]):
        with pytest.raises(StaleCheckpointError, match="weights before training"):
            fit(marked(others), PHASE, SPLIT, None, checkpoint=path, seed=0)
    fit(marked([1.0, torch.inf, torch.nan]), PHASE, SPLIT, None, checkpoint=path, seed=0)


def test_a_network_that_was_refused_is_taken_with_the_right_weights(tmp_path: Path) -> None:
    path, right, wrong = tmp_path / "c.pt", module(), module(seed=1)
    with pytest.raises(KeyboardInterrupt):
        fit(module(), PHASE, SPLIT, None, checkpoint=path, seed=0, report=stop)
    with pytest.raises(StaleCheckpointError, match="weights before training"):
        fit(wrong, PHASE, SPLIT, None, checkpoint=path, seed=0)
    wrong.load_state_dict(right.state_dict())
    fit(wrong, PHASE, SPLIT, None, checkpoint=path, seed=0)


def test_a_training_that_begins_again_is_of_what_the_network_is_then(tmp_path: Path) -> None:
    path, network = tmp_path / "c.pt", module()
    with pytest.raises(KeyboardInterrupt):
        fit(network, PHASE, SPLIT, None, checkpoint=path, seed=0, report=stop)
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        fit(network, PHASE, SPLIT, None, checkpoint=path, seed=0, report=stop)
    with pytest.raises(StaleCheckpointError, match="weights before training"):
        fit(module(), PHASE, SPLIT, None, checkpoint=path, seed=0)
    fit(network, PHASE, SPLIT, None, checkpoint=path, seed=0)


def test_a_file_that_cannot_be_read_is_not_said_to_be_stale(tmp_path: Path) -> None:
    (tmp_path / "c.pt").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        fit(module(), PHASE, SPLIT, None, checkpoint=tmp_path / "c.pt", seed=0)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "other", "of an older version"])
def test_what_is_no_checkpoint_is_said_so(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    if content is None:
        torch.save({"network": module().state_dict(), "epoch": 2}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(StaleCheckpointError, match=r"c\.pt is no checkpoint of this version: delete it"):
        fit(module(), PHASE, SPLIT, None, checkpoint=path, seed=0)


def test_only_a_finished_training_is_taken_to_another_kind_of_device(tmp_path: Path) -> None:
    path, trained = tmp_path / "c.pt", module()

    def moved() -> None:
        state = torch.load(path, weights_only=True)
        state["of"]["device"] = "cuda"
        del state["random"]
        torch.save(state, path)

    with pytest.raises(KeyboardInterrupt):
        fit(trained, PHASE, SPLIT, None, checkpoint=path, seed=0, report=stop)
    moved()
    with pytest.raises(
        StaleCheckpointError, match="was begun on cuda: end it there, or delete it and begin again on cpu"
    ):
        fit(module(), PHASE, SPLIT, None, checkpoint=path, seed=0)
    path.unlink()
    fit(trained := module(), PHASE, SPLIT, None, checkpoint=path, seed=0)
    moved()
    fit(found := module(), PHASE, SPLIT, None, checkpoint=path, seed=0)
    for one, other in zip(trained.state_dict().values(), found.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_teacher_answers_in_evaluation_mode_and_is_left_as_it_was(tmp_path: Path) -> None:
    found = []
    for training in (False, True):
        network, teacher = module(), nn.Sequential(module(seed=2), nn.Dropout(0.5)).train(training)
        before = [value.clone() for value in teacher.state_dict().values()]
        fit(network, TAUGHT, SPLIT, None, checkpoint=tmp_path / f"{training}.pt", seed=0, teacher=teacher)
        assert all(torch.equal(*pair) for pair in zip(before, teacher.state_dict().values(), strict=True))
        assert teacher.training is training
        found.append(list(network.state_dict().values()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_one_output_learns_no_classes(tmp_path: Path) -> None:
    with pytest.raises(BadShapeError, match="the network has one output, and labels are classes"):
        fit(converted(outputs=1), PHASE, SPLIT, None, checkpoint=tmp_path / "c.pt", seed=0)
