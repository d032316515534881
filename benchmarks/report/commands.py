"""Commands on more than one measurement: the page, the comparison of two runs, the peers, the ablation, the neutral yardstick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ciphershift.benchmarks.harness import results
from ciphershift.benchmarks.harness.envelope import ROOT, write
from ciphershift.he_layers.crypto.params import DEFAULT
from ciphershift.models.progress import Step
from ciphershift.server.settings import Settings, available_cpus

app = typer.Typer()
console = Console(stderr=True, highlight=False)

Json = Annotated[str, typer.Option("--json", help="File to append the JSON objects to; - is stdout.")]
Quick = Annotated[bool, typer.Option("--quick", help="Few images and repetitions: minutes instead of an hour.")]


@app.command()
def report(
    quick: Quick = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure everything anew, stored or not.")] = False,
    stored: Annotated[bool, typer.Option("--stored", help="Measure nothing; draw what is stored.")] = False,
    folder: Annotated[Path, typer.Option("--results", help="Folder of stored results.")] = results.RESULTS,
    page: Annotated[Path, typer.Option("--page", help="The page to write; figures go beside it.")] = ROOT
    / "docs"
    / "benchmarks.md",
    readme: Annotated[Path, typer.Option("--readme", help="The README whose tables to write.")] = ROOT / "README.md",
) -> None:
    """Write docs/benchmarks.md, its figures and the README's tables; measure only what is not stored for this machine yet.

    A full run does not reuse results of a quick one.

    Examples:

      ciphershift bench report --quick

      ciphershift bench report --stored
    """
    from ciphershift.benchmarks.report import page as pages
    from ciphershift.benchmarks.report import plan
    from ciphershift.benchmarks.report import readme as readmes
    from ciphershift.errors import CiphershiftError

    if not stored:
        _prepare_peers()
        for question in plan.questions(quick=quick):
            known = results.of_this_machine(results.read(folder) if folder.exists() else [])
            if question.answers(record for record in known if quick or not record.get("quick")) and not fresh:
                console.print(f"stored: {question.about}")
                continue
            console.print(f"measuring: {question.about} …")
            try:
                for record in question.run():
                    results.store(record | ({"quick": True} if quick else {}), folder)
            except CiphershiftError as problem:
                console.print(f"[yellow]left out: {problem}")
    records = results.read(folder) if folder.exists() else []
    pages.write(records, page)
    readmes.write(records, Settings().models, readme)
    console.print(f"wrote {page} and the tables in {readme}")


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="File or folder of JSON lines.")],
    after: Annotated[Path, typer.Argument(help="The same of the other run.")],
    slower: Annotated[
        float, typer.Option(min=1.0, help="Fail if a time is beyond its spread more than so many times longer.")
    ] = 1.1,
) -> None:
    """Show the ratio of every figure that two runs have in common, with its spread.

    Example:

      ciphershift bench primitives --json before.jsonl; git switch my-branch; ciphershift bench primitives --json after.jsonl;
      ciphershift bench compare before.jsonl after.jsonl
    """
    from ciphershift.benchmarks.report import compare as comparison

    try:
        rows, remarks = comparison.compare(results.read(before), results.read(after))
    except results.BadResultError as error:
        raise typer.BadParameter(str(error)) from None
    for remark in remarks:
        console.print(f"[yellow]{remark}")
    typer.echo(comparison.table(rows))
    late = [row for row in rows if row.is_time and row.low > slower]
    for row in late:
        console.print(f"[red]slower: {row.name} {row.figure}, {row.ratio:.2f} times as long")
    raise typer.Exit(1 if late else 0)


@app.command()
def peers(
    name: Annotated[
        list[str] | None,
        typer.Argument(help="Some of them: ciphershift, or the name of a folder. Only by name: concrete_ml-cifar10."),
    ] = None,
    quick: Quick = False,
    json: Json = "-",
) -> None:
    """Run other systems on this machine, and ours, over the same images; benchmarks/peers/install.sh installs the others.

    Example:

      ciphershift bench peers tenseal ciphershift --quick --json -
    """
    from ciphershift.benchmarks.peers import networks, systems
    from ciphershift.benchmarks.report import plan

    asked = set(name or ())
    by_name = {peer.name for peer in systems.PHOTOGRAPHS}
    usual = ["ciphershift", *dict.fromkeys(peer.name for peer in (*systems.PEERS, *systems.LOOKUPS))]
    if unknown := asked - {*usual, *by_name}:
        known = ", ".join((*usual, *sorted(by_name)))
        raise typer.BadParameter(f"no peer is called {', '.join(sorted(unknown))}; there are {known}")
    if any(peer.name in asked and peer.python.exists() for peer in systems.PHOTOGRAPHS):
        networks.prepare_photographs(systems.WORK)
    if not asked or asked - by_name:
        _prepare_peers()
    for question in (*plan.systems(quick=quick), *plan.photographs(quick=quick)):
        named = question.members["peer"]
        if named in asked or (not asked and named not in by_name):
            console.print(f"{question.about} …")
            for result in question.run():
                write(result, json)


def print_step(stage: str, step: Step) -> None:
    """Shows how far a training is, on stderr."""
    console.print(f"{stage} {step}", soft_wrap=True)


def _prepare_peers() -> None:
    """Trains the networks that the peers run, once; does nothing if none of them is installed."""
    from ciphershift.benchmarks.peers import networks, systems

    if any(peer.python.exists() for peer in systems.PEERS):
        networks.prepare(systems.WORK, print_step)


@app.command()
def ablation(
    dataset: Annotated[str, typer.Option("--data", help="mnist, fashion-mnist or cifar10.")] = "mnist",
    seed: Annotated[int, typer.Option(help="Of weights, shuffling and noise.")] = 1,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = ROOT / "build" / "ablation",
    folder: Annotated[Path, typer.Option("--results", help="Folder of stored results.")] = results.RESULTS,
) -> None:
    """Train one small network in many variants and store each accuracy; continues where it was interrupted.

    Example:

      nice -n 19 ciphershift bench ablation --data fashion-mnist
    """
    from dataclasses import asdict

    from ciphershift.benchmarks.networks.ablation import VARIANTS, train_variants

    known = results.read(folder) if folder.exists() else []
    missing = [
        variant
        for variant in VARIANTS
        if not results.newest(known, "ablation", dataset=dataset, variant=asdict(variant), seed=seed)
    ]
    console.print(f"{dataset}: {len(VARIANTS) - len(missing)} of {len(VARIANTS)} variants are stored")
    for record in train_variants(
        dataset,
        variants=missing,
        work=work,
        seed=seed,
        show=print_step,
    ):
        results.store(record, folder)


@app.command()
def yardstick(
    size: Annotated[int, typer.Option(min=0, max=3, help="0: 1 image, 1: 100, 2: 1000, 3: 10 000.")] = 0,
    model: Annotated[str, typer.Option("--model", "-m", help="Name of a model in the zoo.")] = "mnist-fast",
    harness: Annotated[
        Path | None,
        typer.Option(
            "--harness", exists=True, file_okay=False, help="Checkout of the workload, whose own harness is to run it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="By which that harness draws images.")] = 0,
    json: Json = "-",
) -> None:
    """Run our submission to the ml-inference workload of the FHE benchmarking suite, as its harness would or by it.

    Examples:

      ciphershift bench yardstick --size 1 --model mnist-tiny --json -
      ciphershift bench yardstick --size 1 --harness ml-inference
    """
    from ciphershift.benchmarks.report import plan

    if harness is not None:
        write(plan.yardstick_by_harness(harness.resolve(), size, seed, model), json)
    else:
        write(plan.yardstick(size, model), json)


@app.command()
def estimates(json: Json = "-") -> None:
    """Predict the cost of ImageNet's networks and of SHE's recurrent net on this machine.

    Example:

      ciphershift bench estimates --json -
    """
    from ciphershift.benchmarks.networks.estimates import predict_networks

    for record in predict_networks(DEFAULT, threads=available_cpus()):
        write(record, json)


@app.command()
def first_stage(
    maps: Annotated[int, typer.Option(min=1, max=64, help="How many of AlexNet's first 64 maps.")] = 2,
    json: Json = "-",
) -> None:
    """Run the first stage of AlexNet on an encrypted image of 224 x 224, and compare the time with the cost model's.

    Example:

      ciphershift bench first-stage --maps 2 --json -
    """
    from ciphershift.benchmarks.networks.first_stage import run_first_stage

    write(run_first_stage(DEFAULT, maps=maps, threads=available_cpus()), json)
