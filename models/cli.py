"""Command line: ``ciphershift check | convert | train | verify | answer | models``."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self

import torch
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn, track
from rich.table import Table

from ciphershift.errors import ConfigurationError, UnknownModelError, UnreadableDataError
from ciphershift.he_layers.analysis.windows import safe_factor
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.program import PROGRAM_FILE, Program
from ciphershift.he_layers.stem import MEANING
from ciphershift.models import user_module
from ciphershift.models.compiler import answers
from ciphershift.models.compiler.budget import Budget
from ciphershift.models.compiler.onnx_graph import SUFFIX
from ciphershift.models.cost_report import STEPS
from ciphershift.models.cost_report import check as check_module
from ciphershift.models.progress import Step
from ciphershift.models.training import cards, data, folds, pipeline, sets
from ciphershift.models.training.loop import FINE_TUNING
from ciphershift.models.training.recipes import RECIPES, Conversion, Recipe
from ciphershift.models.training.sets import Reading, Splits

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Bring your own network: check what it costs, convert it, verify it; train and list the networks of the zoo.\n\n"
    "Examples:\n\n  ciphershift check docs/examples/lenet5.py:lenet5\n\n  ciphershift verify mnist-fast",
)
console = Console()
Source = Annotated[
    str, typer.Argument(help="A function that returns an nn.Module, as path/to/file.py:factory; or an ONNX file.")
]
Input = Annotated[str | None, typer.Option("--input", help="Shape of an image, as 3x32x32.")]
Params = Annotated[str, typer.Option("--params", help="Name of a parameter set.")]
Work = Annotated[Path, typer.Option(help="Folder for checkpoints; an interrupted training goes on from there.")]
Output = Annotated[Path, typer.Option(help="Folder that gets the network's folder.", show_default="the zoo")]
Threads = Annotated[int, typer.Option(min=1, help="Threads to use.")]
Device = Annotated[str, typer.Option(help="Where to train, as torch names it: cpu, cuda, cuda:1.")]
Public = Annotated[
    str | None,
    typer.Option(
        help="Path of a part of the module, as features.0: up to its end the network is public, and clients compute it."
    ),
]
Name = Annotated[str, typer.Argument(help="A model of the zoo, or the folder of one.")]
Views = Annotated[
    int, typer.Option(min=1, max=2, help="2: answer with the mean of the logits of the image and its mirror image.")
]
WORK = Path("build/training")


@app.command()
def check(
    source: Source,
    input_shape: Input = None,
    public: Public = None,
    params: Params = parameter_sets.DEFAULT,
    threads: Threads = 1,
) -> None:
    """List what cannot be evaluated encrypted, or what the network would cost.

    Example:

      ciphershift check docs/examples/lenet5.py:lenet5
    """
    module = user_module.load_module(source)
    shape = user_module.input_shape(module, input_shape)
    with _Steps(STEPS) as steps:
        report = check_module(module, shape, params=params, threads=threads, show=steps.show, public=public)
    if report.cost is None:
        table = Table("where", "what", "instead", title=f"{escape(source)} cannot be converted yet")
        for finding in report.findings:
            table.add_row(*(escape(text) for text in (finding.place, finding.problem, finding.instead)))
        console.print(table)
        raise typer.Exit(1)
    table = Table(
        "where", "operation", "result", "look-ups", title=f"{escape(source)} on {'x'.join(map(str, shape))}, {params}"
    )
    for step in report.steps:
        table.add_row(escape(step.place), step.operation, "x".join(map(str, step.shape)), f"{step.lookups or ''}")
    console.print(table)
    cost = report.cost
    console.print(
        f"{cost.lookups} look-ups for an image, predicted {cost.seconds:.1f} s with {threads} threads of this machine;\n"
        f"upload {cost.upload_bytes} bytes, answer {cost.download_bytes} bytes, evaluation keys {cost.key_bytes} bytes (sent once)",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def convert(
    source: Source,
    dataset: Annotated[
        str,
        typer.Option(
            help=f"Data set: {', '.join(data.CLASSES)}; or your own: a folder of images by class, an .npz, a .csv."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the new model.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="The trained state dict: .safetensors, or a file of torch.save.",
            show_default="an ONNX file has its own",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of training after the conversion; 0: none.")
    ] = FINE_TUNING.epochs,
    learning_rate: Annotated[
        float, typer.Option(help="Learning rate at the start; it falls to zero.")
    ] = FINE_TUNING.learning_rate,
    exponents: Annotated[int, typer.Option(min=1, max=7, help="Powers of two that a weight may take.")] = 4,
    levels: Annotated[int, typer.Option(min=1, max=255, help="Greatest integer of an activation.")] = 31,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            help="Choose the parameter set so that a sample takes no more than this, predicted for --threads of this machine."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Choose exponents, levels and parameter set so that the conversion, before training, loses no more points than "
            "this on the validation data."
        ),
    ] = None,
    params: Params = parameter_sets.DEFAULT,
    public: Public = None,
    target: Annotated[str | None, typer.Option(help="Column of a CSV that is to be predicted.")] = None,
    regression: Annotated[
        bool | None,
        typer.Option(
            "--regression/--classes",
            help="Whether the target is a number or a class; by default a number if it has fractions, or more than 30 different values.",
        ),
    ] = None,
    class_names: Annotated[
        str, typer.Option(help="Names of the classes, where the data have numbers alone, as normal,pneumonia.")
    ] = "",
    standardize: Annotated[
        bool,
        typer.Option(
            "--standardize",
            help="The module expects each feature less its mean, divided by its deviation, both over the training data.",
        ),
    ] = False,
    mean: Annotated[
        str, typer.Option(help="Means of the normalization that the module expects, as 0.485,0.456,0.406.")
    ] = "",
    std: Annotated[str, typer.Option(help="Deviations of that normalization.")] = "",
    input_levels: Annotated[
        int, typer.Option(min=1, max=255, help="Steps of a pixel or a feature; few for recurrent networks.")
    ] = 255,
    views: Views = 1,
    work: Work = WORK,
    output: Output = cards.ZOO,
    threads: Threads = 1,
    device: Device = pipeline.CPU,
) -> None:
    """Convert a trained module, recover its accuracy under the circuit's noise, and write program, weights and card.

    Examples:

      ciphershift convert docs/examples/lenet5.py:lenet5 --weights lenet5.pt --dataset mnist --name lenet5

      ciphershift convert net.py:net --weights net.pt --dataset patients.csv --target diagnosis --standardize --name patients

      ciphershift convert net.onnx --dataset patients.csv --target diagnosis --name patients
    """
    if views > 1 and max_seconds is not None:
        raise typer.BadParameter(
            "they are for one view of an image: convert for half of them without --views, then: ciphershift answer --views 2",
            param_hint="--max-seconds",
        )
    _log()
    torch.set_num_threads(threads)
    _require(device)
    phase = replace(FINE_TUNING, epochs=epochs, learning_rate=learning_rate)
    budget = Budget(max_seconds=max_seconds, max_drop=max_drop, threads=threads)
    conversion = Conversion(
        phases={"noisy": phase} if epochs else {},
        exponents=exponents,
        levels=levels,
        params=params,
        public=public,
        views=views,
        budget=budget,
    )
    module = user_module.load_module(source)
    if weights is None and not source.endswith(SUFFIX):
        raise typer.BadParameter("the module has no trained weights: name their file", param_hint="--weights")
    if weights is not None:
        user_module.load_weights(module, weights)
    reading = Reading(
        target=target,
        standardize=standardize,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        classes=tuple(class_names.split(",")) if class_names else (),
        regression=regression,
        levels=input_levels,
    )
    splits = Splits.load(dataset, reading=reading)
    options = "".join(
        f" {option} {value}"
        for option, value in (
            ("--target", target),
            ("--class-names", class_names),
            ("--mean", mean),
            ("--std", std),
            ("--levels", levels if levels != 31 else None),
            ("--max-seconds", max_seconds),
            ("--max-drop", max_drop),
        )
        if value is not None and value != ""
    )
    with _Bars(name) as bars:
        card = pipeline.convert_module(
            name,
            module,
            conversion,
            splits,
            work=work / name,
            output=output / name,
            source=source,
            made_by=f"ciphershift convert {source}{f' --weights {weights.name}' if weights else ''} --dataset {dataset} --name {name} "
            f"--epochs {epochs} --learning-rate {learning_rate} --exponents {exponents} --params {params}"
            f"{options}{' --standardize' if standardize else ''}"
            + ("" if regression is None else " --regression" if regression else " --classes")
            + (f" --input-levels {input_levels}" if input_levels != 255 else "")
            + (f" --public {public}" if public else "")
            + (f" --views {views}" if views > 1 else "")
            + (f" --device {device}" if device != pipeline.CPU else ""),
            show=bars.show,
            device=device,
        )
    _print_card(card)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    work: Work = WORK,
    output: Output = cards.ZOO,
    threads: Threads = 1,
    device: Device = pipeline.CPU,
    everything: Annotated[
        bool, typer.Option("--everything", help="Keep no validation images: for when nothing is left to choose.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            help="Train once for each of so many folds, and add the figures to the card that is there.",
        ),
    ] = None,
) -> None:
    """Train a network of the zoo from nothing, convert it, and write its card.

    Examples:

      ciphershift train mnist-tiny

      ciphershift train breast-cancer --folds 10
    """
    _log()
    if name not in RECIPES:
        raise typer.BadParameter(f"no recipe is called {name!r}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(threads)
    _require(device)
    recipe = RECIPES[name]
    if count is not None:
        if not isinstance(recipe, Recipe):
            raise typer.BadParameter("folds are for networks of the fast profile", param_hint="--folds")
        with _Bars(name) as bars:
            _print_folds(
                folds.measure(recipe, count, work=work / name, folder=output / name, show=bars.show)["folds"], name
            )
        return
    reading = recipe.reading if isinstance(recipe, Recipe) else None
    splits = Splits.load(recipe.dataset, everything=everything, reading=reading)
    with _Bars(name) as bars:
        checkpoints = work / (f"{name}-everything" if everything else name)
        card = pipeline.train_recipe(
            recipe, splits, work=checkpoints, output=output / name, show=bars.show, device=device
        )
    _print_card(card)


@app.command()
def verify(
    name: Name,
    images: Annotated[int, typer.Option(min=1, help="How many test images.")] = 10,
    start: Annotated[int, typer.Option(min=0, help="The first test image.")] = 0,
    threads: Threads = 1,
) -> None:
    """Evaluate test images encrypted and in the clear, and compare the logits.

    Example:

      ciphershift verify mnist-fast --images 10
    """
    try:  # the other commands do without the client's packages
        from ciphershift.models import verification
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, which encrypts: pip install 'ciphershift[client,models]'"
        ) from None
    folder = _folder(name)
    program = Program.load(folder)
    data_of_card = sets.of_card(cards.read(folder))
    if not program.output.parts and data_of_card.classes != program.output.classes:
        raise UnreadableDataError(
            f"the data have the classes {', '.join(data_of_card.classes)}, {program.name} has {', '.join(program.output.classes)}: "
            "convert it again"
        )
    test = data_of_card.test.part(start, start + images)
    table = Table("image", "label", "encrypted", "plaintext", "largest difference, in simulated deviations")
    comparisons = verification.verify(program, test.images, threads=threads)
    agree = 0
    for index, comparison in enumerate(track(comparisons, name, total=len(test.labels), console=console)):
        worst = abs((comparison.encrypted - comparison.plain) / comparison.simulated_std).max()
        names = program.output.classes
        wanted, *found = (
            (f"{number:.4g}" for number in (test.labels[index], comparison.encrypted[0], comparison.plain[0]))
            if test.labels.dtype.kind == "f"
            else (names[i] for i in (test.labels[index], comparison.encrypted.argmax(), comparison.plain.argmax()))
        )
        table.add_row(str(start + index), escape(wanted), *map(escape, found), f"{worst:.1f}")
        agree += comparison.agrees
    console.print(table)
    for one in program.recurrent:
        wraps = "no input of any length wraps" if one.never_wraps else "inputs that wrap are not excluded"
        console.print(
            f"recurrent layer {one.layer}: norm {one.norm:.3f}{' with weights for each state' if one.weights else ''}, "
            f"an error in each step grows by {one.error_bound:.1f} at most; "
            f"sums of any length reach {one.reach:.2f} turns, {one.window:.2f} are right: {wraps}",
            highlight=False,
        )
    console.print(f"verify: model={program.name} images={len(test.labels)} agree={agree}", highlight=False)


@app.command()
def answer(
    name: Name,
    output: Annotated[Path, typer.Option(help="Folder that gets the new network's folder.")],
    levels: Annotated[
        int | None,
        typer.Option(help="Answer each logit as one of so many steps; without it, the predicted class alone."),
    ] = None,
    views: Views = 1,
    windows: Annotated[
        float,
        typer.Option(min=1, help="Windows of look-ups so many times as wide: answers stay, crafted inputs wrap less."),
    ] = 1,
) -> None:
    """Make a network that answers otherwise: coarse logits, the greatest class alone, the mean over two views, or by wider windows.

    Examples:

      ciphershift answer mnist-fast --output build/zoo

      ciphershift answer mnist-fast --output build/zoo --levels 31

      ciphershift answer fashion-fast --output build/zoo --views 2

      ciphershift answer mnist-tiny --output build/zoo --windows 2
    """
    if (levels is not None) + (views > 1) + (windows > 1) > 1:
        raise typer.BadParameter("a network is changed in one way: give --levels, --views or --windows")
    program = Program.load(_folder(name))
    if windows > 1:
        changed = answers.widened(program, windows)
    elif views > 1:
        changed = answers.mirrored(program)
    elif levels is not None:
        changed = answers.quantized(program, levels)
    else:
        changed = answers.top_one(program)
    changed.save(output / changed.name)
    console.print(f"{escape(str(output / changed.name))}: {changed.lookups} look-ups, {program.lookups} before")
    if windows > 1:
        safe = math.floor(100 * safe_factor(program) + 1) / 100
        console.print(
            f"noise apart, no input at all can leave a window {'here' if windows >= safe else f'from --windows {safe} on'}"
        )


@app.command("models")
def list_zoo() -> None:
    """List the networks of the zoo with their measured accuracies.

    Example:

      ciphershift models
    """
    table = Table("name", "data", "look-ups", "float", "quantized", "simulated", "parameters")
    for folder in sorted(path.parent for path in cards.ZOO.glob(f"*/{cards.CARD_FILE}")):
        card = cards.read(folder)
        accuracies = (f"{card[key]:.2%}" for key in _figures(card))
        table.add_row(escape(card["name"]), escape(card["dataset"]), str(card["lookups"]), *accuracies, card["params"])
    console.print(table)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(number) for number in text.split(",")) if text else ()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers, as 0.485,0.456,0.406", param_hint=option) from error


def _require(device: str) -> None:
    """Refuses a device that torch cannot use here."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(
            f"torch cannot use {device!r} here ({reason}); take cpu", param_hint="--device"
        ) from error


class _Bars:
    """One bar for each stage of a training; plain lines if the output is no terminal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: dict[str, TaskID] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> "_Bars":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def show(self, stage: str, step: Step) -> None:
        """A step of a stage is over."""
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(f"{self.name} {stage}", total=step.total, state="")
        self.bar.update(self.tasks[stage], completed=step.done, state=str(step))
        if not console.is_terminal:
            console.print(f"{self.name} {stage} {step}", highlight=False, soft_wrap=True)


class _Steps:
    """One bar over a few steps; nothing if the output is no terminal."""

    def __init__(self, steps: Sequence[str]) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.steps = steps
        self.task = self.bar.add_task("", total=len(steps))

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def show(self, step: str) -> None:
        """A step begins."""
        self.bar.update(self.task, completed=self.steps.index(step), description=step)


def _log() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )


def _figures(card: Mapping[str, object]) -> tuple[str, ...]:
    """Members of a card: float, quantized and simulated accuracy, or R²."""
    return next(keys for keys in cards.FIGURES if keys[0] in card)


def _print_folds(figures: dict[str, Any], name: str) -> None:
    each = ", ".join(
        f"{key} {value['mean']:.4f} ± {value['deviation']:.4f}" for key, value in figures.items() if key != "count"
    )
    console.print(f"{name}: {figures['count']} folds, mean and deviation: {each}", highlight=False)


def _folder(name: str) -> Path:
    """Of a model, by its name in the zoo or as it is given. Raises UnknownModelError."""
    folder = Path(name) if Path(name, PROGRAM_FILE).is_file() else cards.ZOO / name
    if not folder.is_dir():
        raise UnknownModelError(f"{name!r} is neither a model of the zoo nor a folder with a model")
    return folder


def _print_card(card: dict[str, Any]) -> None:
    figures = ", ".join(f"{key} {card[key]}" for key in _figures(card))
    console.print(f"{card['name']}: {card['lookups']} look-ups; test images: {figures}", highlight=False)
    if "public" in card:
        console.print(f"public up to {card['public']['public']}: {MEANING}", highlight=False, markup=False)
    if "test_samples_refused" in card:
        console.print(
            f"{card['test_samples_refused']} of the test samples have a value beyond the training samples' range: the figures have it "
            "moved to the end of the range, clients refuse it (out_of_levels)",
            highlight=False,
        )
