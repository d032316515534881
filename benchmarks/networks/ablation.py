"""How much accuracy each choice costs: the ablation of SHE's paper, in simulation: one small topology, one choice changed at a time.

C-A-P-C-P-A-F-A-F with 8 and 16 maps and 64 units. The variants on ReLU and max-pool go through models.compiler.convert and are
trained and tested with the noise of a parameter set (times `noise`); those without it are plain float modules, as CKKS would
evaluate them nearly exactly.
Few epochs: differences below the stated deviation say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.crelu import BothSigns
from ciphershift.models.nn.shift import ShiftWeights
from ciphershift.models.nn.whitening import IMAGES, Whitening
from ciphershift.models.progress import Show
from ciphershift.models.training.behind import behind
from ciphershift.models.training.loop import accuracy, to_unit
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.pipeline import CALIBRATION_IMAGES, train_phase
from ciphershift.models.training.sets import Splits

MAPS, UNITS = (8, 16), 64
FLOAT_PHASE = Phase(epochs=4, learning_rate=4e-3, distortion=0.0)
NOISY_PHASE = Phase(epochs=4, learning_rate=3e-3, frozen=0.25, distortion=0.0)
AVERAGE = 0.995
"""Decay of averaged weights: over half an epoch."""
DRAWN = (0.5, 1.5)
"""Limits of a factor of the noise that is drawn."""
FIRST = "0"
"""Path of the first layer."""
FIT_WIDTH, FIT_POINTS = 4.0, 801


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What is chosen.

    Attributes:
        activation: "relu" (clipped, as a look-up computes it), "both" (of both signs, by the same look-ups), "square", or the degree of
            a polynomial fitted to ReLU, such as "poly4".
        pool: "max", "average", or "stride": convolutions with twice the stride in place of pools.
        exponents: powers of two that a weight may take; None: float weights.
        noise: of the circuit, in multiples of the parameter set's; None: no circuit, float activations.
        public: whether the client computes the first layer, whitened patches of the images, which is not trained.
        clips: whether it is learned, where weights are clipped.
        averaged: whether the training with noise ends in the averages of its weights, not in the last ones.
        drawn: whether the factor of the noise is drawn for each batch of that training.
    """

    activation: str = "relu"
    pool: str = "max"
    exponents: int | None = None
    noise: float | None = None
    public: bool = False
    clips: bool = False
    averaged: bool = False
    drawn: bool = False

    @property
    def name(self) -> str:
        """For checkpoints and progress."""
        weights = f"{self.exponents}-exponents" if self.exponents else "float-weights"
        noise = "no-circuit" if self.noise is None else f"noise-{self.noise:g}"
        more = "".join(f"-{choice}" for choice in ("public", "clips", "averaged", "drawn") if getattr(self, choice))
        return f"{self.activation}-{self.pool}-{weights}-{noise}{more}"


VARIANTS = (
    Variant(),
    Variant(pool="average"),
    Variant(activation="square", pool="average"),
    Variant(activation="poly2", pool="average"),
    Variant(activation="poly4", pool="average"),
    Variant(noise=1.0),
    *(Variant(exponents=exponents, noise=1.0) for exponents in (4, 1, 2, 3, 5, 6)),
    *(Variant(exponents=4, noise=noise) for noise in (0.0, 2.0, 4.0)),
    *(Variant(exponents=exponents, noise=1.0, clips=True) for exponents in (2, 3, 4)),
    Variant(exponents=4, noise=1.0, averaged=True),
    Variant(exponents=4, noise=1.0, drawn=True),
    Variant(activation="both", exponents=4, noise=1.0),
    Variant(pool="stride", exponents=4, noise=1.0),
    Variant(activation="both", pool="stride", exponents=4, noise=1.0),
    Variant(activation="both", pool="stride", exponents=4, noise=1.0, public=True),
)


class Polynomial(nn.Module):
    """Least-squares fit to ReLU on inputs of a standard normal distribution, as batch norm gives them."""

    coefficients: Tensor

    def __init__(self, degree: int) -> None:
        super().__init__()
        x = np.linspace(-FIT_WIDTH, FIT_WIDTH, FIT_POINTS)
        fitted = np.polynomial.Polynomial.fit(x, np.maximum(x, 0), degree, w=np.exp(-(x**2) / 4)).convert().coef
        self.register_buffer("coefficients", torch.tensor(fitted, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Horner's rule, value by value."""
        result = torch.zeros_like(x)
        for coefficient in self.coefficients.flip(0):
            result = result * x + coefficient
        return result


class Square(nn.Module):
    """x^2, value by value."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * x


def module(variant: Variant, channels: int, side: int) -> nn.Sequential:
    """The untrained float module for square images; its first part is the first layer."""
    signs = 2 if variant.activation == "both" else 1

    def activation() -> nn.Module:
        match variant.activation:
            case "relu":
                return nn.Hardtanh(0.0, 1.0)
            case "both":
                return BothSigns()
            case "square":
                return Square()
        return Polynomial(int(variant.activation.removeprefix("poly")))

    def norm(values: int, kind: type[nn.BatchNorm1d | nn.BatchNorm2d]) -> nn.Module:
        made = kind(values)
        nn.init.constant_(made.weight, 0.5 if variant.activation in ("relu", "both") else 1.0)
        return made

    def layer(inputs: int, maps: int, kernel: int, stride: int) -> nn.Sequential:
        """With a pool of 2 x 2, or with a kernel and a stride that read as much."""
        pooled = variant.pool != "stride"
        if not pooled:
            kernel, stride = kernel + stride, 2 * stride
        made = [nn.Conv2d(inputs, maps, kernel, stride, (kernel - 1) // 2, bias=False), norm(maps, nn.BatchNorm2d)]
        pools = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
        return nn.Sequential(*made, activation(), *([pools[variant.pool](2)] if pooled else []))

    first, second = MAPS
    return nn.Sequential(
        Whitening(channels, first, 5, 4) if variant.public else layer(channels, first, 5, 2),
        layer(signs * first, second, 3, 1),
        nn.Flatten(),
        nn.Linear(signs * second * (side // 8) ** 2, UNITS, bias=False),
        norm(UNITS, nn.BatchNorm1d),
        activation(),
        nn.Linear(signs * UNITS, 10),
    )


def train_variants(
    dataset: str, *, variants: Sequence[Variant], work: Path, seed: int, show: Show
) -> Iterator[dict[str, Any]]:
    """Yields one object per variant, trained on the training images but the last 5000 and tested on all test images.

    Args:
        dataset: name for models.training.data.load.
        variants: in this order.
        work: folder for checkpoints; an interrupted run goes on from there.
        seed: of weights, shuffling and noise.
        show: called with the name of a variant after every epoch; see models.progress.
    """
    splits = Splits.load(dataset)
    for variant in variants:
        network = _trained(variant, splits, work / dataset / str(seed), seed, show)
        torch.manual_seed(seed)
        stem = network.stem if isinstance(network, Network) else None
        share = accuracy(network, behind(stem, splits.test) if stem else splits.test)
        yield envelope(
            "ablation", threads=torch.get_num_threads(), params=parameter_sets.get(parameter_sets.DEFAULT)
        ) | {
            "dataset": dataset,
            "variant": asdict(variant),
            "seed": seed,
            "accuracy": round(share, 4),
            "standard_error": round((share * (1 - share) / len(splits.test.labels)) ** 0.5, 4),
            "images": len(splits.test.labels),
            "epochs": FLOAT_PHASE.epochs + (NOISY_PHASE.epochs if isinstance(network, Network) else 0),
        }


def _trained(variant: Variant, splits: Splits, work: Path, seed: int, show: Show) -> nn.Module:
    torch.manual_seed(seed)
    start = replace(variant, exponents=None, noise=None, clips=False, averaged=False, drawn=False)
    _, channels, side, _ = splits.train.images.shape
    network = module(start, channels, side)
    if isinstance(network[0], Whitening):
        network[0].look_at(torch.tensor(splits.train.images[:IMAGES]))
    train_phase(start.name, network, FLOAT_PHASE, splits, work=work, seed=seed, show=show)
    network.eval()
    if variant.noise is None:
        return network
    images = to_unit(torch.tensor(splits.train.spread(CALIBRATION_IMAGES).images))
    if variant.exponents is None:  # weights stay real numbers
        unrounded = before_rounding(network, images)
        converted, noise = unrounded.network.train(), unrounded.noise
        converted.quantize(True)
        for weights in converted.of_type(ShiftWeights):
            weights.quantized = False
    else:
        public = FIRST if variant.public else None
        converted = convert(network, images, exponents=variant.exponents, public=public)
        assert converted.noise is not None, "models.compiler.convert returns a network with noise"
        noise = converted.noise
    factors = {name: value * variant.noise for name, value in asdict(noise).items() if name != "polynomial_size"}
    converted.noise = replace(noise, **factors)
    phase = replace(
        NOISY_PHASE,
        clips=variant.clips,
        average=AVERAGE if variant.averaged else 0.0,
        loudness=DRAWN if variant.drawn else (1.0, 1.0),
    )
    train_phase(variant.name, converted, phase, splits, work=work, seed=seed, show=show)
    return converted.eval()
