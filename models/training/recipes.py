"""How each network of the zoo is made: an ordinary module and its training. Chosen on the validation images, never on the test images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import nn

from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Shape
from ciphershift.models.compiler.answers import VIEWS
from ciphershift.models.compiler.budget import Budget
from ciphershift.models.compiler.drives import MAX_OUTSIDE
from ciphershift.models.nn.crelu import BothSigns
from ciphershift.models.nn.exact import ExactNetwork, SparseConvSpec, SparseDenseSpec, SparseSpec
from ciphershift.models.nn.gated import Gated
from ciphershift.models.nn.recurrent import Recurrent, Steps
from ciphershift.models.nn.residual import Residual
from ciphershift.models.nn.whitening import Whitening
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.sets import Reading
from ciphershift.models.training.teacher import TeacherSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvSpec:
    """Convolution to ``maps`` channels, max-pool of ``pool`` x ``pool`` (1: none), batch norm, activation; ``both``: of both signs.

    ``residual``: what it reads is added to what the activation reads; it must keep channels and size.
    """

    maps: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: int = 1
    both: bool = False
    residual: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseSpec:
    """Dense layer to ``units`` values, batch norm and activation; ``both``: of both signs."""

    units: int
    both: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrentSpec:
    """Recurrent layer of ``units`` over ``width`` rows of an image, or places of a series, at a time.

    What follows reads every ``every``-th state, the last one among them.
    """

    units: int
    width: int = 1
    every: int = 1


PUBLIC = "0"
"""Path of a recipe's stem in its module."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StemSpec:
    """A public first part, which is not trained (models.nn.whitening): ``maps`` filters of both signs, means of ``pool`` x ``pool``."""

    maps: int
    kernel: int
    pool: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What is chosen for a conversion.

    Attributes:
        phases: of training after the conversion, by name, in order.
        levels: greatest integer of an activation.
        exponents: powers of two that a weight may take.
        max_outside: see models.compiler.convert.
        params: name of the parameter set.
        seed: of shuffling, distortion and noise.
        public: path of the last public part; None: all of the network is secret, or what is behind the recipe's stem.
        views: of an image, the mean of whose answers is the answer: 1, or 2 with the mirror image (compiler.answers.mirrored).
        budget: limits by which levels, exponents and parameter set are chosen, from those above on.
    """

    phases: Mapping[str, Phase]
    levels: int = 31
    exponents: int = 4
    max_outside: float = MAX_OUTSIDE
    params: str = parameter_sets.DEFAULT
    seed: int = 1
    public: str | None = None
    views: int = 1
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        """Raises ValueError for other views, or a budget, which is for one view."""
        if self.views not in (1, VIEWS):
            raise ValueError(f"views = {self.views}; it is 1 or {VIEWS}")
        if self.views > 1 and self.budget != Budget():
            raise ValueError("a budget is for one view: leave it out, or the second view")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One network of the zoo.

    Attributes:
        dataset: name or path for models.training.sets.Splits.
        input_shape: of a sample.
        blocks: the topology; a dense layer to the classes follows them.
        float_phase: training of the float module.
        conversion: what comes after it.
        reading: how the data are read.
        gated: whether a second network of this topology gives the gates of the first (models.nn.gated).
        stem: the public part before the blocks.
        mean: whether the classes are read from the mean of each feature map, not from all places.
        teacher: of the float phase, if this is distilled.
    """

    name: str
    dataset: str
    input_shape: Shape
    blocks: tuple[ConvSpec | DenseSpec | RecurrentSpec, ...]
    float_phase: Phase
    conversion: Conversion
    classes: int = 10
    reading: Reading = field(default_factory=Reading)
    gated: bool = False
    stem: StemSpec | None = None
    mean: bool = False
    teacher: TeacherSpec | None = None

    def module(self) -> nn.Module:
        """The untrained float module; its activations clip at one, as the look-ups will."""
        return Gated(self._plain(), self._plain(), self.input_shape) if self.gated else self._plain()

    def _plain(self) -> nn.Sequential:
        layers: list[nn.Module] = []
        channels, height, width = (*self.input_shape, 1, 1)[:3]
        if self.stem is not None:
            layers.append(Whitening(channels, self.stem.maps, self.stem.kernel, self.stem.pool))
            channels, height, width = 2 * self.stem.maps, height // self.stem.pool, width // self.stem.pool
        values = channels * height * width if self.stem else prod(self.input_shape)
        for block in self.blocks:
            if isinstance(block, RecurrentSpec):
                steps = height // block.width
                layers += [Steps(block.width), Recurrent(values // steps, block.units, block.every), nn.Flatten()]
                values = -(-steps // block.every) * block.units
                continue
            if isinstance(block, ConvSpec):
                read = channels, height, width
                conv = nn.Conv2d(channels, block.maps, block.kernel, block.stride, block.padding, bias=False)
                height, width = (
                    ((side + 2 * block.padding - block.kernel) // block.stride + 1) // block.pool
                    for side in (height, width)
                )
                pools = [nn.MaxPool2d(block.pool)] if block.pool > 1 else []
                channels, values = block.maps, block.maps * height * width
                if block.residual and (block.maps, height, width) != read:
                    raise ValueError(
                        f"{block} is residual and makes {(block.maps, height, width)} of {read}; these must be the same"
                    )
                row = [conv, *pools, _half(nn.BatchNorm2d(channels))]
                layers += [Residual(*row)] if block.residual else row
            else:
                if not any(isinstance(layer, nn.Flatten) for layer in layers):
                    layers.append(nn.Flatten())
                layers += [nn.Linear(values, block.units, bias=False), _half(nn.BatchNorm1d(block.units))]
                values = block.units
            layers.append(BothSigns() if block.both else nn.Hardtanh(0.0, 1.0))
            if block.both:
                channels, values = 2 * channels, 2 * values
        if self.mean:
            layers.append(nn.AdaptiveAvgPool2d(1))
            values = channels
        if not any(isinstance(layer, nn.Flatten) for layer in layers):
            layers.append(nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(values, self.classes))


def _half(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """A batch norm after which an activation that clips at one begins with a ramp of two standard deviations."""
    nn.init.constant_(norm.weight, 0.5)
    return norm


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactRecipe:
    """One network of the zoo in the exact profile, which is trained without noise.

    Attributes:
        dataset: name for models.training.data.load.
        input_shape: (C, H, W) of its images.
        blocks: the topology.
        head_nonzeros: weights of each logit that are not 0.
        modulus: of the sums that look-ups read; ``logit_modulus`` that of the logits.
        pixel_levels: greatest integer of a pixel; ``levels`` that of an activation.
        float_phase: training of the float baseline of the same topology.
        integer_phase: training from there with integers.
        params: name of the parameter set that the network is made for.
    """

    name: str
    dataset: str
    input_shape: tuple[int, int, int]
    blocks: tuple[SparseSpec, ...]
    head_nonzeros: int
    modulus: int
    logit_modulus: int
    pixel_levels: int
    levels: int
    float_phase: Phase
    integer_phase: Phase
    params: str
    seed: int = 1

    def module(self) -> ExactNetwork:
        """The untrained network, which computes with real numbers until it is quantized."""
        return ExactNetwork(
            self.input_shape,
            self.blocks,
            head_nonzeros=self.head_nonzeros,
            modulus=self.modulus,
            logit_modulus=self.logit_modulus,
            levels=self.levels,
            pixel_levels=self.pixel_levels,
        )


def _photographs(**choices: Any) -> Phase:
    """A phase for images that may be mirrored, on large feature maps."""
    return Phase(**{"distortion": 0.0, "smoothing": 0.1, "fused": True} | choices)


_MUON: dict[str, Any] = {"muon": True, "batch": 256, "weight_decay": 0.01}


def _teacher(epochs: int) -> TeacherSpec:
    """Of the networks for CIFAR-10."""
    seen: dict[str, Any] = {"smoothing": 0.0, "shift": 3, "cut_out": 12, "alternating": True}
    phase = _photographs(epochs=epochs, learning_rate=0.05, muon=True, unit_rows=True, batch=500, **seen)
    return TeacherSpec(maps=24, widths=(64, 256, 256), phase=phase)


def _taught(epochs: int) -> Phase:
    """By that teacher, who answers once."""
    seen: dict[str, Any] = {"smoothing": 0.0, "shift": 4, "cut_out": 12, "alternating": True}
    return _photographs(epochs=epochs, learning_rate=0.05, distilled=0.9, remembered=True, **seen, **_MUON)


_POLISHED = _photographs(
    epochs=5, learning_rate=2e-3, frozen=1.0, smoothing=0.0, shift=4, alternating=True, distilled=0.5, **_MUON
)


_CELL_NUCLEI = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry"),
    "fractal dimension",
)


def _table(**choices: Any) -> Phase:
    """For vectors and series: nothing is distorted; few samples, so strong weight decay and small batches."""
    return Phase(distortion=0.0, weight_decay=0.1, batch=32, **choices)


def _twice(maps: int) -> tuple[ConvSpec, ConvSpec]:
    """SHE's C-B-A-C-B-A-P (Lou and Jiang, NeurIPS 2019)."""
    return ConvSpec(maps=maps, kernel=3, padding=1), ConvSpec(maps=maps, kernel=3, padding=1, pool=2)


def _gated(name: str, public: str | None = None) -> Recipe:
    """Two networks of mnist-tiny's width."""
    noisy = Phase(epochs=5, learning_rate=2e-3, frozen=0.25, batch=256, distilled=0.5)
    return Recipe(
        name=name,
        dataset="mnist",
        input_shape=(1, 28, 28),
        blocks=(ConvSpec(maps=9, kernel=10, stride=5, padding=3), DenseSpec(units=105)),
        gated=True,
        float_phase=Phase(epochs=8, learning_rate=6e-3, batch=256),
        conversion=Conversion(phases={"noisy": noisy}, public=public),
    )


RECIPES: dict[str, Recipe | ExactRecipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist-tiny",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(ConvSpec(maps=9, kernel=10, stride=5, padding=3, both=True), DenseSpec(units=105, both=True)),
            float_phase=Phase(epochs=200, learning_rate=4e-3, batch=256),
            conversion=Conversion(phases={"noisy": Phase(epochs=60, learning_rate=3e-3, frozen=0.1, batch=256)}),
        ),
        _gated("mnist-gated"),
        _gated("mnist-gated-public", public="gates"),
        Recipe(
            name="mnist-fast",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(
                ConvSpec(maps=6, kernel=9, stride=3, padding=1, both=True),
                ConvSpec(maps=24, kernel=4, stride=2, padding=1, both=True),
                DenseSpec(units=224, both=True),
            ),
            float_phase=Phase(epochs=160, learning_rate=4e-3, batch=256),
            conversion=Conversion(phases={"noisy": Phase(epochs=60, learning_rate=3e-3, frozen=0.1, batch=256)}),
        ),
        Recipe(
            name="mnist-she",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(
                ConvSpec(maps=20, kernel=5, stride=2, padding=2, pool=2),
                ConvSpec(maps=48, kernel=3, padding=1, pool=2),
                DenseSpec(units=128),
            ),
            float_phase=Phase(epochs=12, learning_rate=4e-3),
            conversion=Conversion(phases={"noisy": Phase(epochs=40, learning_rate=3e-3, frozen=0.15)}),
        ),
        Recipe(
            name="fashion-fast",
            dataset="fashion-mnist",
            input_shape=(1, 28, 28),
            blocks=(
                ConvSpec(maps=12, kernel=5, stride=2, padding=2, both=True),
                ConvSpec(maps=44, kernel=4, stride=2, padding=1, both=True),
                ConvSpec(maps=72, kernel=3, stride=2, padding=1, both=True),
                DenseSpec(units=256, both=True),
            ),
            float_phase=_photographs(epochs=40, learning_rate=0.05, shift=2, **_MUON),
            conversion=Conversion(
                phases={
                    "polished": _photographs(
                        epochs=8, learning_rate=2e-3, frozen=1.0, smoothing=0.0, shift=2, distilled=0.5, **_MUON
                    )
                },
                max_outside=2e-2,
            ),
        ),
        Recipe(
            name="mnist-dshe",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(*_twice(16), *_twice(32), *_twice(64), *_twice(128), DenseSpec(units=128)),
            float_phase=Phase(epochs=12, learning_rate=4e-3, fused=True),
            conversion=Conversion(
                phases={"noisy": Phase(epochs=20, learning_rate=3e-3, frozen=0.15, fused=True)},
            ),
        ),
        Recipe(
            name="cifar10-fast",
            dataset="cifar10",
            input_shape=(3, 32, 32),
            stem=StemSpec(maps=16, kernel=3, pool=2),
            blocks=(
                ConvSpec(maps=48, kernel=3, padding=1, both=True),
                ConvSpec(maps=160, kernel=4, stride=2, padding=1, both=True),
                ConvSpec(maps=160, kernel=3, padding=1),
                ConvSpec(maps=128, kernel=3, padding=1),
                ConvSpec(maps=256, kernel=4, stride=2, padding=1, both=True),
                ConvSpec(maps=256, kernel=3, padding=1),
            ),
            mean=True,
            teacher=_teacher(epochs=12),
            float_phase=_taught(epochs=80),
            conversion=Conversion(phases={"polished": _POLISHED}),
        ),
        Recipe(
            name="cifar10-dshe",
            dataset="cifar10",
            input_shape=(3, 32, 32),
            stem=StemSpec(maps=16, kernel=3, pool=2),
            blocks=(
                ConvSpec(maps=96, kernel=3, padding=1, both=True),
                ConvSpec(maps=96, kernel=3, padding=1),
                ConvSpec(maps=96, kernel=3, padding=1, residual=True),
                ConvSpec(maps=224, kernel=4, stride=2, padding=1, both=True),
                ConvSpec(maps=224, kernel=3, padding=1),
                ConvSpec(maps=224, kernel=3, padding=1, residual=True),
                ConvSpec(maps=256, kernel=4, stride=2, padding=1, both=True),
                ConvSpec(maps=256, kernel=3, padding=1),
                ConvSpec(maps=256, kernel=3, padding=1, residual=True),
            ),
            mean=True,
            teacher=_teacher(epochs=28),
            float_phase=_taught(epochs=60),
            conversion=Conversion(phases={"polished": _POLISHED}, views=2),
        ),
        Recipe(
            name="cifar10-she",
            dataset="cifar10",
            input_shape=(3, 32, 32),
            blocks=(*_twice(32), *_twice(96), *_twice(256), DenseSpec(units=128)),
            teacher=_teacher(epochs=28),
            float_phase=_taught(epochs=60),
            conversion=Conversion(phases={"polished": _POLISHED}),
        ),
        Recipe(
            name="chest-xray",
            dataset="medmnist/pneumoniamnist.npz",
            input_shape=(1, 28, 28),
            blocks=(
                ConvSpec(maps=12, kernel=5, stride=2, padding=2),
                ConvSpec(maps=24, kernel=3, padding=1, pool=2),
                DenseSpec(units=48),
            ),
            float_phase=Phase(epochs=12, learning_rate=3e-3, distortion=0.0, smoothing=0.1, shift=2, weight_decay=0.05),
            conversion=Conversion(
                phases={
                    "noisy": Phase(
                        epochs=12,
                        learning_rate=2e-3,
                        frozen=0.15,
                        distortion=0.0,
                        smoothing=0.1,
                        shift=2,
                        distilled=0.5,
                    )
                }
            ),
            classes=2,
            reading=Reading(classes=("normal", "pneumonia")),
        ),
        Recipe(
            name="breast-cancer",
            dataset="wdbc/wdbc.npz",
            input_shape=(30,),
            blocks=(DenseSpec(units=32), DenseSpec(units=16)),
            float_phase=_table(epochs=60, learning_rate=3e-3),
            conversion=Conversion(phases={"noisy": _table(epochs=120, learning_rate=3e-3, frozen=0.15, distilled=0.5)}),
            classes=2,
            reading=Reading(
                standardize=True,
                names=tuple(f"{of} {what}" for of in ("mean", "error of", "worst") for what in _CELL_NUCLEI),
            ),
        ),
        Recipe(
            name="german-credit",
            dataset="german-credit.csv",
            input_shape=(61,),
            blocks=(DenseSpec(units=24),),
            float_phase=_table(epochs=12, learning_rate=2e-3),
            conversion=Conversion(phases={"noisy": _table(epochs=40, learning_rate=2e-3, frozen=0.15, distilled=0.5)}),
            classes=2,
            reading=Reading(target="creditability", standardize=True),
        ),
        Recipe(
            name="splice-dna",
            dataset="splice/splice.npz",
            input_shape=(4, 60),
            blocks=(DenseSpec(units=96), DenseSpec(units=32)),
            float_phase=_table(epochs=30, learning_rate=2e-3),
            conversion=Conversion(phases={"noisy": _table(epochs=60, learning_rate=2e-3, frozen=0.15, distilled=0.5)}),
            classes=3,
        ),
        Recipe(
            name="rows-rnn",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(RecurrentSpec(units=140, width=2),),
            reading=Reading(levels=15),
            float_phase=Phase(epochs=15, learning_rate=3e-3),
            conversion=Conversion(
                phases={
                    "noisy": Phase(epochs=2, learning_rate=1e-4, frozen=1.0, batch=256, distortion=0.3, distilled=0.5)
                },
                levels=15,
                max_outside=5e-2,
            ),
        ),
        Recipe(
            name="speaker-rnn",
            dataset="japanese-vowels/japanese-vowels.npz",
            input_shape=(13, 29),
            blocks=(RecurrentSpec(units=48, every=7),),
            float_phase=_table(epochs=60, learning_rate=5e-3),
            conversion=Conversion(phases={"noisy": _table(epochs=30, learning_rate=2e-3, frozen=0.2, distilled=0.5)}),
            classes=9,
            reading=Reading(standardize=True, levels=63),
        ),
        Recipe(
            name="splice-rnn",
            dataset="splice/splice.npz",
            input_shape=(4, 60),
            blocks=(RecurrentSpec(units=48, width=3, every=5),),
            float_phase=_table(epochs=30, learning_rate=2e-3),
            conversion=Conversion(
                phases={"noisy": _table(epochs=12, learning_rate=5e-4, frozen=1.0, distilled=0.5)},
                levels=15,
                max_outside=5e-2,
            ),
            classes=3,
            reading=Reading(levels=1),
        ),
        ExactRecipe(
            name="mnist-exact",
            dataset="mnist",
            input_shape=(1, 28, 28),
            blocks=(
                SparseConvSpec(maps=8, kernel=5, stride=2, nonzeros=16),
                SparseConvSpec(maps=20, kernel=4, stride=2, padding=1, nonzeros=28),
                SparseDenseSpec(units=96, nonzeros=32),
            ),
            head_nonzeros=32,
            modulus=56,
            logit_modulus=256,
            pixel_levels=2,
            levels=3,
            float_phase=Phase(epochs=6, learning_rate=4e-3, batch=256),
            integer_phase=Phase(epochs=100, learning_rate=4e-3, frozen=0.1, batch=256, distortion=0.5, fading=0.5),
            params=parameter_sets.EXACT_N2048.name,
        ),
    )
}
