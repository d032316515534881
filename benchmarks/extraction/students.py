"""Networks of an attacker, trained on the victim's answers: of its topology, which the model profile tells, or dense ones."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ciphershift.he_layers.layers import AvgPool2d, ChannelShuffle, Conv2d, CReLU, Flatten, Linear, MaxPool2d, ReLU
from ciphershift.he_layers.layers.layer import Layer
from ciphershift.he_layers.program import IMAGE, Program
from ciphershift.models.nn.crelu import BothSigns

BATCH = 512
RATE = 1e-2  # from random weights
UNITS = 256  # of a copy that has not the victim's topology


class Clip(nn.Module):
    """A ReLU that clips at one, as the victim's do."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...] in 0 to 1."""
        return x.clamp(0, 1)


def is_row(program: Program) -> bool:
    """Whether the layers follow each other, and are convolutions, dense layers, ReLUs, pools and what moves values."""
    before = (IMAGE, *(layer.name for layer in program.layers))
    followed = all(stage.sources == (name,) for stage, name in zip(program.stages, before, strict=False))
    return followed and all(_module(layer) is not None for layer in program.layers)


def untrained(program: Program, seed: int) -> nn.Sequential:
    """Returns a network with random weights: of a Program's topology if its layers are a row, else of UNITS hidden ones."""
    in_row = is_row(program)
    torch.manual_seed(seed)
    if not in_row:
        inputs, classes = math.prod(program.input.shape), len(program.output.classes)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, UNITS), nn.ReLU(), nn.Linear(UNITS, classes))
    student = nn.Sequential(*(module for layer in program.layers if (module := _module(layer)) is not None))
    with torch.no_grad():
        for module in student:
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.add_(0.3)  # most of the ramp is above zero: no unit begins without a gradient
    return student


def _module(layer: Layer) -> nn.Module | None:
    """The layer with random weights; None of a kind that a copy does not have."""
    match layer:
        case Conv2d():
            out, per_group, height, width = layer.weight.shape
            inputs = per_group * layer.groups
            return nn.Conv2d(inputs, out, (height, width), layer.stride, layer.padding, groups=layer.groups)
        case Linear():
            return nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        case ReLU():
            return Clip()
        case CReLU():
            return BothSigns()
        case ChannelShuffle():
            return nn.Identity()  # channels of random weights have no order
        case MaxPool2d():
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case AvgPool2d():
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding)
        case Flatten():
            return nn.Flatten()
    return None


def distill(
    student: nn.Sequential,
    inputs: NDArray[np.float32],
    wanted: NDArray[np.floating],
    *,
    steps: int,
    by_class: bool,
    rate: float = RATE,
) -> nn.Sequential:
    """Trains a network on answers: Adam, rate falling to zero by a cosine; returns it.

    Args:
        student: from `untrained`.
        inputs: float32 [n, ...].
        wanted: answers [n, classes].
        steps: batches of BATCH inputs.
        rate: of learning, at its greatest.
        by_class: whether the greatest answer alone counts (cross-entropy), or all of them (squared error).
    """
    x = torch.from_numpy(inputs)
    answers = np.asarray(wanted, dtype=np.float32)
    y = torch.from_numpy(answers.argmax(axis=1) if by_class else (answers - answers.mean()) / answers.std())
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / 50) * (1 + math.cos(math.pi * step / steps)) / 2 + 1e-3
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
        out = student(x[chosen])
        loss = functional.cross_entropy(out, y[chosen]) if by_class else functional.mse_loss(out, y[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return student


def fit_last(student: nn.Sequential, inputs: NDArray[np.float32], wanted: NDArray[np.floating]) -> None:
    """Sets the last layer to the least squares fit of answers [n, classes], normalized as `distill` does."""
    last = student[-1]
    assert isinstance(last, nn.Linear), "the networks that are attacked end in a dense layer"
    with torch.no_grad():
        hidden = student[:-1](torch.from_numpy(inputs))
        y = torch.from_numpy(np.asarray((wanted - wanted.mean()) / wanted.std(), dtype=np.float32))
        solved = torch.linalg.lstsq(torch.cat([hidden, torch.ones(len(hidden), 1)], 1), y, driver="gelsd").solution
        last.weight.copy_(solved[:-1].T)
        last.bias.copy_(solved[-1])


def misfit(student: nn.Sequential, inputs: NDArray[np.float32], wanted: NDArray[np.floating], by_class: bool) -> float:
    """Returns the mean squared error of answers [n, classes], normalized as `distill` does, or the share of other classes."""
    if by_class:
        return float((classes_of(student, inputs) != wanted.argmax(axis=1)).mean())
    with torch.no_grad():
        out = student(torch.from_numpy(inputs)).numpy()
    return float(((out - (wanted - wanted.mean()) / wanted.std()) ** 2).mean())


def classes_of(student: nn.Sequential, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the predicted classes [n]."""
    with torch.no_grad():
        parts = [student(torch.from_numpy(inputs[i : i + 1000])).argmax(1) for i in range(0, len(inputs), 1000)]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.int64)


def first_rows(student: nn.Sequential) -> NDArray[np.float64]:
    """Returns weights and bias of the first layer's units, [units, weights + 1]."""
    layer = next(module for module in student if isinstance(module, nn.Conv2d | nn.Linear))
    assert layer.bias is not None
    weight = layer.weight.detach().flatten(1)
    return np.asarray(torch.cat([weight, layer.bias.detach()[:, None]], 1).numpy(), dtype=np.float64)
