"""From a module, or a recipe, to an entry of the zoo: train, convert, train with the circuit's noise, export, measure."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.program import Program
from ciphershift.models.compiler import answers
from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.export_exact import export_exact
from ciphershift.models.compiler.inputs import Logits, decoded
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.whitening import IMAGES, Whitening
from ciphershift.models.progress import Show, Step
from ciphershift.models.training import cards, sets
from ciphershift.models.training.behind import secret_data
from ciphershift.models.training.loop import Report, fit
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.recipes import PUBLIC, Conversion, ExactRecipe, Recipe
from ciphershift.models.training.sets import Splits

VERSION = "1"
CALIBRATION_IMAGES = 500
CPU = "cpu"
GPU_PAUSE = 10.0
"""Seconds between two checkpoints of a training on a GPU, whose epochs may be shorter than a checkpoint takes."""


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
    device: str = CPU,
) -> None:
    """Trains any module for one phase on a device, as torch names it, and brings it back; goes on from its checkpoint in ``work``."""

    def report(after: Report) -> None:
        state = f"loss {after.loss:.4f}"
        if after.accuracy is not None:
            state += f", validation {after.accuracy:.4f}"
        show(stage, Step(done=after.epoch, total=after.epochs, state=state))

    train, validation, public = splits.train, splits.validation, None
    if isinstance(module, Network):
        train, validation, public = secret_data(module, phase, train, validation, work)
    modules = [each for each in (module, teacher, public) if each is not None]
    for each in modules:
        each.to(device)
    fit(
        module,
        phase,
        train,
        validation,
        checkpoint=work / f"{stage}.pt",
        seed=seed,
        teacher=teacher,
        public=public,
        report=report,
        pause=0.0 if device == CPU else GPU_PAUSE,
    )
    for each in modules:
        each.to(CPU)


def convert_module(
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
    device: str = CPU,
) -> dict[str, Any]:
    """Makes an entry of the zoo from a trained float module; returns its card.

    Args:
        work: folder for checkpoints; an interrupted run goes on from there.
        output: folder of the entry.
        source: where the module comes from, for the card: a recipe's name, or path/to/file.py:factory.
        made_by: the command that does the same again.
        show: called after every epoch and while the card is measured; see models.progress.
        training: what the card says on top of the conversion's choices.
        device: of training, as torch names it.

    Raises:
        UnsupportedLayerError: the module cannot be converted.
        OverBudgetError: no conversion keeps to the budget.
    """
    torch.manual_seed(conversion.seed)
    inputs, images, judged = splits.inputs, splits.train.spread(CALIBRATION_IMAGES).images, splits.validation
    network = convert(
        module.eval(),
        inputs.raw_of(images),
        params=conversion.params,
        levels=conversion.levels,
        exponents=conversion.exponents,
        max_outside=conversion.max_outside,
        public=conversion.public,
        inputs=inputs,
        **asdict(conversion.budget),
        validation=None if judged is None else (inputs.raw_of(judged.images), judged.labels),
    )
    conversion = replace(conversion, params=network.params, levels=network.levels, exponents=network.exponents)

    def exported() -> Program:
        program = export(network.eval(), name=name, version=VERSION, params=conversion.params, classes=splits.classes)
        return replace(answers.mirrored(program), name=name) if conversion.views > 1 else program

    if conversion.views > 1:
        exported()  # what has no second view is refused before it is trained
    baseline = decoded(module, inputs, images.shape[1])
    teacher = Logits(baseline, network.output) if network.output else baseline
    for stage, phase in conversion.phases.items():
        train_phase(
            stage, network, phase, splits, work=work, seed=conversion.seed, show=show, teacher=teacher, device=device
        )
    return cards.write(
        output,
        exported(),
        baseline,
        source_of_data=sets.card_of(splits),
        training=dict(training or {}) | asdict(conversion),
        module_source=source,
        made_by=made_by,
        validation=splits.validation,
        test=splits.test,
        show=show,
    )


def train_recipe(
    recipe: Recipe | ExactRecipe, splits: Splits, *, work: Path, output: Path, show: Show, device: str = CPU
) -> dict[str, Any]:
    """Trains, converts or quantizes, exports and measures; returns the card.

    Args:
        recipe: what to make.
        splits: of the recipe's data set.
        work: folder for checkpoints; an interrupted run goes on from there.
        output: folder of the entry.
        show: called after every epoch and while the card is measured; see models.progress.
        device: of training, as torch names it.
    """
    made_by = f"ciphershift train {recipe.name}"
    if splits.validation is None:
        made_by += " --everything"
    if device != CPU:
        made_by += f" --device {device}"
    if isinstance(recipe, ExactRecipe):
        return _train_exact(recipe, splits, work=work, output=output, show=show, made_by=made_by, device=device)
    seed = recipe.conversion.seed
    torch.manual_seed(seed)
    module = recipe.module()
    _look(module, splits)
    teacher = None
    if recipe.teacher is not None:
        torch.manual_seed(seed)
        teacher = recipe.teacher.module(recipe.input_shape, recipe.classes)
        _look(teacher, splits)
        train_phase("teacher", teacher, recipe.teacher.phase, splits, work=work, seed=seed, show=show, device=device)
    conversion = replace(recipe.conversion, public=PUBLIC) if recipe.stem else recipe.conversion
    learner = decoded(module, splits.inputs, recipe.input_shape[0])
    train_phase(
        "float", learner, recipe.float_phase, splits, work=work, seed=seed, show=show, teacher=teacher, device=device
    )
    taught = {} if recipe.teacher is None else {"teacher": asdict(recipe.teacher)}
    return convert_module(
        recipe.name,
        module,
        conversion,
        splits,
        work=work,
        output=output,
        source=recipe.name,
        made_by=made_by,
        show=show,
        training=taught
        | {"blocks": [asdict(block) for block in recipe.blocks], "float_phase": asdict(recipe.float_phase)},
        device=device,
    )


def _look(module: nn.Module, splits: Splits) -> None:
    """Whitened first layers take their filters from the training images."""
    for part in module.modules():
        if isinstance(part, Whitening):
            part.look_at(torch.tensor(splits.train.images[:IMAGES]))


def _train_exact(
    recipe: ExactRecipe, splits: Splits, *, work: Path, output: Path, show: Show, made_by: str, device: str
) -> dict[str, Any]:
    torch.manual_seed(recipe.seed)
    baseline = recipe.module()
    options: dict[str, Any] = {"work": work, "seed": recipe.seed, "show": show, "device": device}
    train_phase("float", baseline, recipe.float_phase, splits, **options)
    network = deepcopy(baseline)
    network.quantize(True)
    train_phase("integer", network, recipe.integer_phase, splits, **options)
    program = export_exact(network, name=recipe.name, version=VERSION, params=recipe.params, classes=splits.classes)
    noise_budget.require_exact(program, parameter_sets.get(recipe.params))
    return cards.write(
        output,
        program,
        baseline,
        source_of_data=sets.card_of(splits),
        module_source=recipe.name,
        training=asdict(recipe),
        made_by=made_by,
        validation=splits.validation,
        test=splits.test,
        show=show,
    )
