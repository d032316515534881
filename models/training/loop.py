"""Training: epochs with changed images, on a processor or a GPU, and a checkpoint after every epoch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ciphershift.errors import BadShapeError
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.exact import ExactNetwork
from ciphershift.models.training import metrics
from ciphershift.models.training.behind import secret_data
from ciphershift.models.training.capture import stream_of
from ciphershift.models.training.checkpoint import Checkpoint
from ciphershift.models.training.data import Split
from ciphershift.models.training.lesson import Lesson
from ciphershift.models.training.phase import Phase

EVALUATION_BATCH = 500
FINE_TUNING = Phase(epochs=8, learning_rate=1e-3, frozen=0.25, distortion=0.0)
"""For networks that are trained already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """After an epoch: its number from 1, the mean loss, the accuracy (or R²) on the validation images, if any are kept out."""

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None


def fine_tune(
    network: Network,
    train: Split,
    validation: Split | None,
    *,
    checkpoint: Path,
    phase: Phase = FINE_TUNING,
    seed: int = 0,
    teacher: nn.Module | None = None,
    report: Callable[[Report], None] = lambda _: None,
) -> None:
    """Recovers the accuracy of a converted network: trains it with integer weights and the circuit's noise, then holds its scales still.

    Afterwards it is in evaluation mode, ready for models.compiler.export. Arguments as of ``fit``; of a network with a public part the raw
    images, which the teacher takes, too.

    Raises:
        NotEquivalentError: the module has changed since its public part was written.
    """
    if network.noise is None:
        raise ValueError(
            "the network has no noise to be trained with; use the network that models.compiler.convert returns"
        )
    network.quantize(True)
    train, validation, public = secret_data(network, phase, train, validation)
    fit(
        network,
        phase,
        train,
        validation,
        checkpoint=checkpoint,
        seed=seed,
        teacher=teacher,
        public=public,
        report=report,
    )


def fit(
    network: nn.Module,
    phase: Phase,
    train: Split,
    validation: Split | None,
    *,
    checkpoint: Path,
    seed: int,
    teacher: nn.Module | None = None,
    public: nn.Module | None = None,
    report: Callable[[Report], None] = lambda _: None,
    pause: float = 0.0,
) -> None:
    """Trains ``network`` in place, on the device where it lies; goes on from ``checkpoint`` if it exists.

    Args:
        network: any module, or a Network in the state (quantized or not, with noise or without) that is to be trained.
        phase: how long and how hard.
        train: images to learn from.
        validation: images to report on; None if all are trained on.
        checkpoint: file that is written after an epoch. It knows the training that it is of: phase, seed, data, network and teacher.
        seed: of shuffling, distortion and noise; an interrupted run ends like one that was not.
        teacher: module for a phase that is distilled; it takes the same images as the network, and answers in evaluation mode.
        public: what the training images go through before the network, after they were changed (models.training.behind.secret_data);
            the validation images are what it gives.
        report: called after an epoch.
        pause: seconds without a report and a checkpoint at least, where epochs are short; the last epoch always has them.

    Raises:
        ValueError: the phase is distilled and there is no teacher.
        BadShapeError: the network has several outputs, or one, and labels are classes.
        StaleCheckpointError: the checkpoint is of another training, or was begun on another kind of device.
    """
    if isinstance(network, Network):
        network.require_logits()
        if network.parts[0].shape == (1,) and not np.issubdtype(train.labels.dtype, np.floating):
            raise BadShapeError(
                "the network has one output, and labels are classes: give it an output for each class, or labels as floating-point numbers"
            )
    if phase.distilled and teacher is None:
        raise ValueError(
            "a phase that is distilled needs a teacher; give the float module that the network was converted from"
        )
    torch.manual_seed(seed)
    phase = phase.of(len(train.labels))
    device = next(network.parameters()).device
    kept = Checkpoint.of(checkpoint, network, phase, seed, train, teacher)
    if phase.fused or device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(network, Network):
            network.fuse()
    if isinstance(network, Network):
        network.learn_clips(phase.clips)
    images, labels = torch.tensor(train.images, device=device), torch.tensor(train.labels, device=device)
    labels = labels.float() if labels.is_floating_point() else labels
    with stream_of(device):
        state = kept.load(device) if checkpoint.exists() else None
        kept.begin(network)
        lesson = Lesson(network, phase, images, labels, teacher=teacher, public=public)
        done = 0 if state is None else _resume(lesson, state, device)
        count, standing = len(labels) // phase.batch, round(phase.epochs * (1 - phase.frozen))
        if isinstance(network, Network | ExactNetwork):
            network.freeze(done > standing)
        reported = time.monotonic()
        for epoch in range(done, phase.epochs):
            network.train()
            order = torch.randperm(len(labels)).to(device)
            if isinstance(network, Network | ExactNetwork) and not network.frozen and epoch >= standing:
                lesson.freeze(order if epoch else None)
            lesson.total.zero_()
            for step in range(count):
                progress = (epoch + step / count) / phase.epochs
                lesson.learn(order[step * phase.batch : (step + 1) * phase.batch], epoch, progress)
            last = epoch + 1 == phase.epochs
            if last:
                lesson.take_average(order)
            if last or time.monotonic() - reported >= pause:
                kept.save(lesson.state_dict() | _random(device) | {"epoch": epoch + 1})
                right = None if validation is None else accuracy(network, validation)
                loss = float(lesson.total) / count
                report(Report(epoch=epoch + 1, epochs=phase.epochs, loss=loss, accuracy=right))
                reported = time.monotonic()
        if isinstance(network, Network):
            network.loudness.fill_(1.0)
            network.placed = None
            network.learn_clips(False)
            while not network.contract(last=True):
                pass
    kept.end(network)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()


def accuracy(network: nn.Module, split: Split) -> float:
    """Share of images whose greatest logit is the label's; R² where labels are numbers."""
    return metrics.score(logits(network, split.images), split.labels)


def logits(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits [count, classes] of uint8 images, in evaluation mode, at the network's device; the random state is left as it was."""
    was_training, random = network.training, torch.get_rng_state()
    # What was read of an ONNX file has no parameters, and may have no buffers.
    device = next((each.device for each in chain(network.parameters(), network.buffers())), torch.device("cpu"))
    network.eval()
    loud = network.loudness.clone() if isinstance(network, Network) else None
    if isinstance(network, Network):
        network.loudness.fill_(1.0)
    batches = []
    for batch in torch.split(torch.tensor(images), EVALUATION_BATCH):
        with torch.no_grad():
            batches.append(network(to_unit(batch.to(device))).float().cpu())
    if isinstance(network, Network) and loud is not None:
        network.loudness.copy_(loud)
    network.train(was_training)
    torch.set_rng_state(random)
    result: NDArray[np.float32] = torch.cat(batches).numpy()
    return result


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels as numbers in [0, 1]."""
    return images.float() / 255


def _random(device: torch.device) -> dict[str, Tensor]:
    on_gpu = {"random_gpu": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"random": torch.get_rng_state()} | on_gpu


def _resume(lesson: Lesson, state: dict[str, Any], device: torch.device) -> int:
    """Brings a lesson to where the checkpoint was written; returns the epochs that are done."""
    done = int(state["epoch"])
    if done == lesson.phase.epochs:  # perhaps on another kind of device: nothing but the result is needed
        lesson.network.load_state_dict(state["network"])
        return done
    lesson.load_state_dict(state)
    torch.set_rng_state(state["random"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["random_gpu"].cpu(), device)
    return done
