"""Training: epochs with distorted images, cosine schedule, and a checkpoint after every epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.exact import ExactNetwork
from ciphershift.models.training.augment import cut_out, distort, shift_and_mirror
from ciphershift.models.training.data import Split
from ciphershift.models.training.muon import Muon

EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One run over the training set.

    Attributes:
        epochs: passes over the training images.
        learning_rate: of the optimizer at the start; it falls to zero along a cosine.
        frozen: share of the epochs, at the end, during which statistics and torus scales stand still.
        distortion: strength of models.training.augment.distort.
        shift: greatest shift in pixels; images are then mirrored, too (models.training.augment.shift_and_mirror).
        cut_out: side in pixels of a square that is hidden in each image.
        batch: images in a step.
        weight_decay: of the optimizer.
        smoothing: share of the label that is spread over all classes.
        fused: compile the look-ups (models.compiler.network.Network.fuse) and multiply in bfloat16, channels last, for large feature maps.
        paired: every batch is seen with noise and without; the network learns to be right in both and to answer alike.
        muon: by models.training.muon, not AdamW; the learning rate is that of its hidden weights.
        distilled: half of the loss is the distance from the float module's answers to the same images (Hinton et al., arXiv 1503.02531,
            at temperature 1).
    """

    epochs: int
    learning_rate: float
    frozen: float = 0.0
    distortion: float = 0.6
    shift: int = 0
    cut_out: int = 0
    batch: int = 128
    weight_decay: float = 0.0
    smoothing: float = 0.0
    fused: bool = False
    paired: bool = False
    muon: bool = False
    distilled: bool = False


FINE_TUNING = Phase(epochs=8, learning_rate=1e-3, frozen=0.25, distortion=0.0)
"""For networks that are trained already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """After an epoch: its number from 1, the mean loss, the accuracy on the validation images, if any are kept out."""

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

    Afterwards it is in evaluation mode, ready for models.compiler.export. Arguments as of ``fit``.
    """
    if network.noise is None:
        raise ValueError(
            "the network has no noise to be trained with; use the network that models.compiler.convert returns"
        )
    network.quantize(True)
    fit(network, phase, train, validation, checkpoint=checkpoint, seed=seed, teacher=teacher, report=report)


def fit(
    network: nn.Module,
    phase: Phase,
    train: Split,
    validation: Split | None,
    *,
    checkpoint: Path,
    seed: int,
    teacher: nn.Module | None = None,
    report: Callable[[Report], None] = lambda _: None,
) -> None:
    """Trains ``network`` in place; goes on from ``checkpoint`` if it exists.

    Args:
        network: any module, or a Network in the state (quantized or not, with noise or without) that is to be trained.
        phase: how long and how hard.
        train: images to learn from.
        validation: images to report on; None if all are trained on.
        checkpoint: file that is written after every epoch.
        seed: of shuffling, distortion and noise; an interrupted run ends like one that was not.
        teacher: the float module in evaluation mode, for a phase that is distilled.
        report: called after every epoch.

    Raises:
        ValueError: the phase is distilled and there is no teacher.
    """
    if phase.distilled and teacher is None:
        raise ValueError(
            "a phase that is distilled needs a teacher; give the float module that the network was converted from"
        )
    torch.manual_seed(seed)
    if phase.fused:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(network, Network):
            network.fuse()
    optimizer = (Muon if phase.muon else torch.optim.AdamW)(
        network.parameters(), lr=phase.learning_rate, weight_decay=phase.weight_decay
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = len(train.labels) // phase.batch
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        done = int(state["epoch"])
    images, labels = torch.tensor(train.images), torch.tensor(train.labels)
    for epoch in range(done, phase.epochs):
        network.train()
        if isinstance(network, Network | ExactNetwork):
            network.freeze(epoch >= round(phase.epochs * (1 - phase.frozen)))
        order = torch.randperm(len(labels))
        total = 0.0
        for step in range(steps):
            progress = (epoch + step / steps) / phase.epochs
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * progress)) / 2
            chosen = order[step * phase.batch : (step + 1) * phase.batch]
            batch = augmented(to_unit(images[chosen]), phase)
            if phase.fused:
                batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=phase.fused):
                outputs = network(batch)
                loss = functional.cross_entropy(outputs, labels[chosen], label_smoothing=phase.smoothing)
                if phase.paired and isinstance(network, Network):
                    loss = loss + _paired_loss(network, outputs, labels[chosen], batch)
                if phase.distilled and teacher is not None:
                    with torch.no_grad():
                        wanted = functional.softmax(teacher(batch), dim=1)
                    loss = (loss + functional.cross_entropy(outputs, wanted)) / 2
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        _save(
            checkpoint,
            {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "epoch": epoch + 1,
            },
        )
        right = None if validation is None else accuracy(network, validation)
        report(Report(epoch=epoch + 1, epochs=phase.epochs, loss=total / steps, accuracy=right))
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()


def augmented(batch: Tensor, phase: Phase) -> Tensor:
    """Images [B, C, H, W] in [0, 1], changed at random as the phase says."""
    if phase.shift:
        batch = shift_and_mirror(batch, phase.shift)
    if phase.cut_out:
        batch = cut_out(batch, phase.cut_out)
    if phase.distortion:
        batch = distort(batch, phase.distortion)
    return batch


def accuracy(network: nn.Module, split: Split) -> float:
    """Share of images whose greatest logit is the label's."""
    return float((logits(network, split.images).argmax(1) == split.labels).mean())


def logits(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits [count, classes] of uint8 images, in evaluation mode; the random state is left as it was."""
    was_training, random = network.training, torch.get_rng_state()
    network.eval()
    with torch.no_grad():
        batches = [network(to_unit(batch)) for batch in torch.split(torch.tensor(images), EVALUATION_BATCH)]
    network.train(was_training)
    torch.set_rng_state(random)
    result: NDArray[np.float32] = torch.cat(batches).numpy()
    return result


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels as numbers in [0, 1]."""
    return images.float() / 255


def _paired_loss(network: Network, outputs: Tensor, labels: Tensor, batch: Tensor) -> Tensor:
    """Cross-entropy without noise, and the distance of the answers with noise from those without."""
    noise, network.noise = network.noise, None
    clear = network(batch)
    network.noise = noise
    noisy, quiet = functional.log_softmax(outputs, dim=1), functional.log_softmax(clear, dim=1)
    distance = functional.kl_div(noisy, quiet, reduction="batchmean", log_target=True)
    return functional.cross_entropy(clear, labels) + distance


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
