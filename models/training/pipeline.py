"""From a float module to an entry of the zoo: convert, train with the circuit's noise, export, measure. Recipes and users go this way."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.models.compiler.convert import LEAVING, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.progress import Show, Step
from ciphershift.models.training import cards, data
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import Phase, Report, fit, to_unit

VERSION = "1"
VALIDATION_IMAGES = 5000
"""Taken from the end of the training set."""
CALIBRATION_IMAGES = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What is chosen for a conversion.

    Attributes:
        phases: of training after the conversion, by name, in order.
        levels: greatest integer of an activation.
        exponents: powers of two that a weight may take.
        leaving: see models.compiler.convert.
        params: name of the parameter set.
        seed: of shuffling, distortion and noise.
    """

    phases: Mapping[str, Phase]
    levels: int = 31
    exponents: int = 4
    leaving: float = LEAVING
    params: str = parameter_sets.DEFAULT
    seed: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """A data set's name, its training images without the last VALIDATION_IMAGES, those, and its test images.

    ``validation`` is None if all training images are trained on.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split

    @classmethod
    def load(cls, name: str, *, everything: bool = False) -> "Splits":
        """Raises UnreadableDataError. ``everything``: no image is kept out of training, for when nothing is left to choose."""
        dataset = data.load(name)
        count = len(dataset.train.labels)
        if everything:
            return cls(name=name, classes=dataset.classes, train=dataset.train, validation=None, test=dataset.test)
        return cls(
            name=name,
            classes=dataset.classes,
            train=dataset.train.part(0, count - VALIDATION_IMAGES),
            validation=dataset.train.part(count - VALIDATION_IMAGES, count),
            test=dataset.test,
        )


def train_phase(
    stage: str,
    module: nn.Module,
    phase: Phase,
    splits: Splits,
    *,
    work: Path,
    seed: int,
    show: Show,
    teacher: nn.Module | None = None,
) -> None:
    """Trains any module for one phase; goes on from its checkpoint in ``work``."""

    def report(after: Report) -> None:
        state = f"loss {after.loss:.4f}"
        if after.accuracy is not None:
            state += f", validation {after.accuracy:.4f}"
        show(stage, Step(done=after.epoch, total=after.epochs, state=state))

    fit(
        module,
        phase,
        splits.train,
        splits.validation,
        checkpoint=work / f"{stage}.pt",
        seed=seed,
        teacher=teacher,
        report=report,
    )


def make(
    name: str,
    module: nn.Module,
    conversion: Conversion,
    splits: Splits,
    *,
    work: Path,
    output: Path,
    made_by: str,
    show: Show,
    source: str,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Makes an entry of the zoo from a trained float module; returns its card.

    Args:
        work: folder for checkpoints; an interrupted run goes on from there.
        output: folder of the entry.
        source: where the module comes from, for the card: a recipe's name, or path/to/file.py:factory.
        made_by: the command that does the same again.
        show: called after every epoch and while the card is measured; see models.progress.
        training: what the card says on top of the conversion's choices.

    Raises:
        UnsupportedLayerError: the module cannot be converted.
    """
    torch.manual_seed(conversion.seed)
    network = convert(
        module.eval(),
        to_unit(torch.tensor(splits.train.images[:CALIBRATION_IMAGES])),
        params=conversion.params,
        levels=conversion.levels,
        exponents=conversion.exponents,
        leaving=conversion.leaving,
    )
    for stage, phase in conversion.phases.items():
        train_phase(stage, network, phase, splits, work=work, seed=conversion.seed, show=show, teacher=module)
    program = export(network, name=name, version=VERSION, params=conversion.params, classes=splits.classes)
    return cards.write(
        output,
        program,
        module,
        dataset=splits.name,
        training=dict(training or {}) | asdict(conversion),
        module_source=source,
        made_by=made_by,
        validation=splits.validation,
        test=splits.test,
        show=show,
    )
