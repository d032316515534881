"""Command line: ``python -m models train NAME`` and ``python -m models list``."""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from he_layers import answers, noise_budget
from he_layers.crypto import params as parameter_sets
from he_layers.program import Program
from he_layers.simulate import CircuitNoise
from models import cards, data, exact
from models.exact import ExactNetwork
from models.export import to_program
from models.network import Network
from models.recipes import RECIPES, VALIDATION_IMAGES, ExactRecipe
from models.training import Phase, Report, fit

VERSION = "1"
app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train the networks of the zoo and list them.")
console = Console()
Name = Annotated[str, typer.Argument(help=f"one of {', '.join(RECIPES)}")]
Work = Annotated[Path, typer.Option(help="folder for checkpoints; an interrupted training goes on from there")]
Output = Annotated[Path, typer.Option(help="folder that gets the network's folder")]
Threads = Annotated[int, typer.Option(help="threads of torch")]


@app.command()
def train(name: Name, work: Work = Path("build/training"), output: Output = cards.ZOO, threads: Threads = 1) -> None:
    """Train a network, export it and write its card."""
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    if name not in RECIPES:
        raise typer.BadParameter(f"no recipe is called {name!r}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(threads)
    recipe = RECIPES[name]
    params = parameter_sets.get(recipe.params)
    dataset = data.load(recipe.dataset)
    kept = len(dataset.train.labels) - VALIDATION_IMAGES
    images, validation = dataset.train.part(0, kept), dataset.train.part(kept, kept + VALIDATION_IMAGES)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:

        def run(stage: str, network: Network | ExactNetwork, phase: Phase) -> None:
            task = bar.add_task(f"{name} {stage}", total=phase.epochs, state="")

            def show(report: Report) -> None:
                state = f"epoch {report.epoch} loss {report.loss:.4f} validation {report.accuracy:.4f}"
                bar.update(task, completed=report.epoch, state=state)
                if not console.is_terminal:
                    console.print(f"{name} {stage} {state}")

            fit(
                network,
                phase,
                images,
                validation,
                checkpoint=work / name / f"{stage}.pt",
                seed=recipe.seed,
                report=show,
            )

        torch.manual_seed(recipe.seed)
        baseline = recipe.network()
        run("float", baseline, recipe.float_phase)
        network = recipe.network()
        network.load_state_dict(baseline.state_dict())
        network.quantise(True)
        if isinstance(recipe, ExactRecipe):
            run("integer", network, recipe.integer_phase)
        else:
            assert isinstance(network, Network), "a recipe of the fast profile makes this kind"
            network.set_noise(CircuitNoise.predicted(params))
            run("noisy", network, recipe.noisy_phase)
            if recipe.paired_phase is not None:
                run("paired", network, recipe.paired_phase)
    export = exact.to_program if isinstance(network, ExactNetwork) else to_program
    program = export(network, name=name, version=VERSION, params=params.name, classes=dataset.classes)  # type: ignore[arg-type]
    noise_budget.require_exact(program, params)
    measured = [cards.measure(program, baseline, split) for split in (validation, dataset.test)]
    cards.write(output / name, recipe, program, baseline, validation=measured[0], test=measured[1])
    console.print(f"{name}: {program.lookups} look-ups; validation {measured[0]}; test {measured[1]}")


@app.command()
def answer(
    name: Annotated[str, typer.Argument(help="network of the zoo")],
    output: Annotated[Path, typer.Option(help="folder that gets the new network's folder")],
    levels: Annotated[
        int | None,
        typer.Option(help="answer each logit as one of so many steps; without it, the predicted class alone"),
    ] = None,
) -> None:
    """Make a network that gives away less: coarse logits, or only which class is the greatest.

    Examples:

      python -m models answer mnist-fast --output build/zoo

      python -m models answer mnist-fast --output build/zoo --levels 31
    """
    program = Program.load(cards.ZOO / name)
    changed = answers.top_one(program) if levels is None else answers.quantised(program, levels)
    changed.save(output / changed.name)
    console.print(f"{output / changed.name}: {changed.lookups} look-ups, {program.lookups} before")


@app.command(name="list")
def list_zoo() -> None:
    """List the networks of the zoo with their measured accuracies."""
    table = Table("name", "data", "look-ups", "float", "quantised", "simulated", "parameters")
    for folder in sorted(path.parent for path in cards.ZOO.glob(f"*/{cards.CARD_FILE}")):
        card = cards.read(folder)
        accuracies = (f"{card[key]:.2%}" for key in ("accuracy_float", "accuracy_quantised", "accuracy_simulated"))
        table.add_row(card["name"], card["dataset"], str(card["lookups"]), *accuracies, card["params"])
    console.print(table)


if __name__ == "__main__":
    app()
