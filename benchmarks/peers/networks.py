"""The networks that the peers run: TenSEAL's tutorial topology and LoLA's, trained here on the same MNIST, once for each activation.

Batch norms are folded, so that a peer's script needs the weights of two or three layers and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ciphershift.benchmarks.networks.ablation import Polynomial, Square
from ciphershift.models.progress import Show
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.pipeline import convert_module, train_phase
from ciphershift.models.training.recipes import Conversion
from ciphershift.models.training.sets import Splits

TUTORIAL = "conv 4 x 7 x 7 stride 3, 64, 10"
PHASE = Phase(epochs=10, learning_rate=4e-3, distortion=0.3)
NOISY_PHASE = Phase(epochs=10, learning_rate=3e-3, frozen=0.2, distortion=0.3)
CIFAR_IMAGES = 500
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "square": Square,
    "polynomial": lambda: Polynomial(2),
    "relu": nn.ReLU,
}


def tutorial(activation: str) -> nn.Sequential:
    """A convolution of 4 maps, 7 x 7 with stride 3, 64 units, 10 units."""
    made = ACTIVATIONS[activation]
    return nn.Sequential(
        nn.Conv2d(1, 4, 7, 3),
        nn.BatchNorm2d(4),
        made(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.BatchNorm1d(64),
        made(),
        nn.Linear(64, 10),
    )


def lola() -> nn.Sequential:
    """LoLA's (Brutzkus et al. 2019) with squares: 5 maps, 5 x 5 with stride 2 and padding 2, 100 units, 10 units."""
    return nn.Sequential(
        nn.Conv2d(1, 5, 5, 2, 2),
        nn.BatchNorm2d(5),
        Square(),
        nn.Flatten(),
        nn.Linear(980, 100),
        nn.BatchNorm1d(100),
        Square(),
        nn.Linear(100, 10),
    )


def prepare(work: Path, show: Show) -> None:
    """Trains what is missing and writes into ``work``: train.npz, test.npz, {square,polynomial,relu,lola}.npz, and our own Program.

    ``work / "zoo" / "tutorial"`` is the ReLU network, converted by models.compiler.convert and trained with the circuit's noise.
    """
    splits = Splits.load("mnist")
    work.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", splits.train), ("test", splits.test)):
        np.savez(work / f"{name}.npz", images=split.images, labels=split.labels)
    modules: dict[str, nn.Module] = {}
    for name in (*ACTIVATIONS, "lola"):
        torch.manual_seed(1)
        module = modules[name] = lola() if name == "lola" else tutorial(name)
        train_phase(name, module, PHASE, splits, work=work, seed=1, show=show)
        weights: dict[str, Any] = folded(module.eval(), ACTIVATIONS.get(name, Square)())
        np.savez(work / f"{name}.npz", **weights)
    if not (work / "zoo" / "tutorial" / "card.json").exists():
        convert_module(
            "tutorial",
            modules["relu"],
            Conversion(phases={"noisy": NOISY_PHASE}),
            splits,
            work=work,
            output=work / "zoo" / "tutorial",
            made_by="ciphershift bench peers",
            show=show,
            source="benchmarks/peers/networks.py:tutorial",
        )


def prepare_photographs(work: Path) -> None:
    """Writes into ``work`` cifar10.npz: some test images with their labels, and training images for ranges and norms."""
    splits = Splits.load("cifar10")
    test, training = (split.part(0, CIFAR_IMAGES) for split in (splits.test, splits.train))
    work.mkdir(parents=True, exist_ok=True)
    np.savez(work / "cifar10.npz", images=test.images, labels=test.labels, training=training.images)


def folded(module: nn.Sequential, activation: nn.Module) -> dict[str, Any]:
    """Weights of conv, dense and head without batch norms; a polynomial of degree 2 becomes a square between shifted layers."""
    conv, norm1, _, _, dense, norm2, _, head = module
    parts: dict[str, tuple[Tensor, Tensor]] = {
        "conv": _fold(conv, norm1),
        "dense": _fold(dense, norm2),
        "head": _fold(head),
    }
    if isinstance(activation, Polynomial):
        c0, c1, c2 = activation.coefficients.tolist()
        offset, added = c1 / (2 * c2), c0 - c1**2 / (4 * c2)
        for name, following in (("conv", "dense"), ("dense", "head")):
            parts[name] = parts[name][0], parts[name][1] + offset  # x + a, squared
            weight = parts[following][0]
            parts[following] = weight * c2, parts[following][1] + added * weight.sum(1)
    return {
        f"{name}.{kind}": value.detach().numpy().astype(np.float32)
        for name, pair in parts.items()
        for kind, value in zip(("weight", "bias"), pair, strict=True)
    }


def _fold(linear: Any, norm: Any = None) -> tuple[Tensor, Tensor]:
    if norm is None:
        return linear.weight, linear.bias
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = linear.weight * factor.view(-1, *[1] * (linear.weight.dim() - 1))
    return weight, (linear.bias - norm.running_mean) * factor + norm.bias
