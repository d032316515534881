"""`python -m benchmarks`: one command per question."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

import typer

from benchmarks import agreement as agreement_benchmark
from benchmarks import cost as cost_benchmark
from benchmarks import demo as demonstration
from benchmarks import engines as engines_benchmark
from benchmarks import faults as faults_benchmark
from benchmarks import growth as growth_benchmark
from benchmarks import noise as noise_benchmark
from benchmarks import parameters as parameters_benchmark
from benchmarks import primitives as primitives_benchmark
from benchmarks import search as search_benchmark
from benchmarks import security as security_benchmark
from benchmarks import service as service_benchmark
from benchmarks import throughput as throughput_benchmark
from benchmarks.envelope import envelope, write
from benchmarks.peers import measure as peers
from benchmarks.report import commands
from he_layers.crypto.params import DEFAULT
from he_layers.program import Program
from models import data
from server.settings import Settings, available_cpus

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure, on this machine.\n\nResults are JSON, one object a line; progress is shown on a terminal alone.\n\n"
    "Examples:\n\n  python -m benchmarks demo\n\n  python -m benchmarks agreement --model mnist-fast --images 20",
)

cli.add_typer(commands.cli)

Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model in the zoo.")]
Params = Annotated[str, typer.Option("--params", help="Name of a parameter set.")]
Json = Annotated[str, typer.Option("--json", help="File to append the JSON object to; - is stdout.")]


@cli.command()
def demo(model: Model = "mnist-she") -> None:
    """Classify ten encrypted digits through a real server, and compare with the plaintext network.

    Example:

      python -m benchmarks demo --model mnist-fast
    """
    raise typer.Exit(0 if demonstration.run(model) else 1)


@cli.command()
def agreement(
    model: Model,
    images: Annotated[int, typer.Option(min=1, help="How many test images.")] = 200,
    start: Annotated[int, typer.Option(min=0, help="The first test image.")] = 0,
    profile: Annotated[
        str | None, typer.Option(help="Precision profile that the model must have, fast or exact.")
    ] = None,
    json: Json = "-",
) -> None:
    """Count how often the encrypted network predicts what the plaintext network predicts.

    Examples:

      python -m benchmarks agreement --model mnist-fast --images 200 --start 0 --json -

      python -m benchmarks agreement --model mnist-exact --profile exact --images 20 --json -
    """
    has = Program.load(Settings().models / model).profile
    if profile not in (None, has):
        raise typer.BadParameter(f"{model} is of the {has} profile, not of {profile}")
    write(agreement_benchmark.measure(model, images=images, start=start), json)


@cli.command()
def accuracy(model: Model, json: Json = "-") -> None:
    """Accuracy on the whole test set: float, quantised, and simulated with the circuit's noise.

    Example:

      python -m benchmarks accuracy --model mnist-she --json -
    """
    from benchmarks import accuracy as accuracy_benchmark  # the one benchmark that needs torch

    write(envelope("accuracy") | accuracy_benchmark.measure(model), json)


@cli.command()
def security(params: Params = DEFAULT, json: Json = "-") -> None:
    """Every key and ciphertext that leaves the client, with its estimated bits.

    Example:

      python -m benchmarks security --json -
    """
    write(security_benchmark.measure(params), json)


@cli.command()
def search(
    model: Model,
    noise: Annotated[float, typer.Option(min=0.1, help="Noise that the network bears, times that of its set.")] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="How many sets.")] = 10,
    json: Json = "-",
) -> None:
    """Find the cheapest parameter sets for a network: predicted time, noise, key bytes, security.

    Examples:

      python -m benchmarks search --model mnist-fast --count 5 --json -

      python -m benchmarks search --model mnist-exact
    """
    results = list(search_benchmark.measure(model, noise_factor=noise, count=count))
    for result in results:
        write(result, json)
    if not results:
        typer.echo(
            f"no set keeps the noise of every layer of {model} to {noise} of what it bears; try --noise nearer to 1",
            err=True,
        )
        raise typer.Exit(1)


@cli.command()
def cost(
    model: Model,
    repetitions: Annotated[int, typer.Option(min=1, help="How often it is measured; the median counts.")] = 5,
    json: Json = "-",
) -> None:
    """Predicted against measured seconds of a network, layer by layer, in one run.

    Example:

      python -m benchmarks cost --model mnist-fast --json -
    """
    write(cost_benchmark.measure(model, repetitions=repetitions), json)


@cli.command()
def noise(params: Params = DEFAULT, json: Json = "-") -> None:
    """Noise of each primitive, measured against its formula.

    Example:

      python -m benchmarks noise --json -
    """
    for result in noise_benchmark.measure(params):
        write(result, json)


@cli.command()
def primitives(
    params: Annotated[
        list[str] | None,
        typer.Option("--params", help="A parameter set; may be repeated. All that are secure if left out."),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Threads of the kernel; may be repeated. 1 and all cores if left out."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Ciphertexts in one call.")] = 128,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="concrete or openfhe: time their look-ups, too, if benchmarks/peers/install.sh installed them; may be repeated."
        ),
    ] = None,
    json: Json = "-",
) -> None:
    """Time of every primitive per item and core, and how a bootstrap compares with its own arithmetic.

    Examples:

      python -m benchmarks primitives --json -

      python -m benchmarks primitives --peer concrete --peer openfhe
    """
    others = [(name, [p for p in peers.LOOKUPS if p.folder.startswith(name)]) for name in peer or ()]
    if unknown := [name for name, found in others if not found]:
        raise typer.BadParameter(
            f"no peer with look-ups is called {', '.join(unknown)}; there are concrete and openfhe"
        )
    counts = tuple(threads or sorted({1, available_cpus()}))
    for name in params or primitives_benchmark.NAMES:
        for result in primitives_benchmark.measure(name, threads=counts, batch=batch):
            write(result, json)
    for result in chain.from_iterable(peers.measure(p, quick=False) for _, found in others for p in found):
        write(result, json)


@cli.command()
def memory(
    source: Annotated[str, typer.Argument(help="A function that returns an nn.Module, as path/to/file.py:factory.")],
    params: Params = DEFAULT,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernel.")] = 1,
    json: Json = "-",
) -> None:
    """Peak memory of evaluating a network of this shape with random weights and without blind rotations.

    Example:

      python -m benchmarks memory docs/examples/vgg9.py:vgg9 --json -
    """
    from benchmarks import memory as memory_benchmark
    from models import check, loading, simplify, trace  # needs torch, like accuracy

    module = loading.load_module(source)
    shape = loading.input_shape(module, None)
    program = check.stand_in(simplify.simplify(trace.read(module, shape)), shape, params)
    write(
        envelope("memory", threads=threads) | {"source": source} | memory_benchmark.measure(program, threads=threads),
        json,
    )


@cli.command()
def growth(
    params: Params = DEFAULT,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernel.")] = available_cpus(),
    repetitions: Annotated[int, typer.Option(min=1, help="How often each is measured; the median counts.")] = 3,
    json: Json = "-",
) -> None:
    """Seconds for one image against the number of look-ups: one topology, wider and wider.

    Example:

      python -m benchmarks growth --json -
    """
    for result in growth_benchmark.measure(params, threads=threads, repetitions=repetitions):
        write(result, json)


@cli.command()
def throughput(
    model: Model = "mnist-tiny",
    repetitions: Annotated[int, typer.Option(min=1, help="How often each batch is sent.")] = 1,
    json: Json = "-",
) -> None:
    """Images a second through a real server, by the images handed over at once.

    Example:

      python -m benchmarks throughput --model mnist-tiny --json -
    """
    models = Settings().models
    images = data.load(agreement_benchmark.read_card(models / model)["dataset"]).test.images
    for result in throughput_benchmark.measure(models, model, images, repetitions=repetitions):
        write(result, json)


@cli.command()
def parameters(
    model: Model,
    images: Annotated[int, typer.Option(min=1, help="Test images to simulate.")] = 10_000,
    json: Json = "-",
) -> None:
    """Noise, simulated accuracy and predicted time of a network under cheaper and dearer parameter sets.

    Example:

      python -m benchmarks parameters --model mnist-fast --json -
    """
    split = data.load(agreement_benchmark.read_card(Settings().models / model)["dataset"]).test.part(0, images)
    for result in parameters_benchmark.measure(model, split):
        write(result, json)


@cli.command()
def engines(
    model: Model = "mnist-tiny",
    batch: Annotated[int, typer.Option(min=1, help="Images in the job.")] = 8,
    repetitions: Annotated[int, typer.Option(min=1, help="How often the job is sent.")] = 3,
    json: Json = "-",
) -> None:
    """Send the same job to each engine: one local worker, one Ray worker, two Ray workers.

    Example:

      python -m benchmarks engines --model mnist-tiny --batch 8 --json -
    """
    models = Settings().models
    images = data.load(agreement_benchmark.read_card(models / model)["dataset"]).test.images[:batch]
    write(engines_benchmark.measure(models, model, images=images, repetitions=repetitions), json)


@cli.command()
def faults(
    model: Model = "mnist-fast",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to hand in.")] = 40,
    kills: Annotated[int, typer.Option(min=0, help="Kills of the server or of a worker.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images in one job.")] = 2,
    json: Json = "-",
) -> None:
    """Kill the server and its workers at random moments while jobs run; count the lost and the wrong ones.

    Example:

      python -m benchmarks faults --json -
    """
    images, _ = demonstration.samples()
    result = faults_benchmark.measure(Settings().models, model, images=images, batch=batch, jobs=jobs, kills=kills)
    write(result, json)
    raise typer.Exit(1 if result["lost"] or result["wrong"] else 0)


@cli.command()
def service(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Name of a model in the zoo.", show_default="the smallest MNIST one"),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests in all.")] = 200,
    tenants: Annotated[int, typer.Option(min=1, help="Tenants who send them at once.")] = 4,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Open requests of one tenant.", show_default="all")
    ] = None,
    engine: Annotated[str, typer.Option(help="The server's engine, such as local://?workers=2&threads=1.")] = "",
    json: Json = "-",
) -> None:
    """Many tenants at once on one server: lost and crossed answers, waiting times, throughput against one client, memory.

    Example:

      python -m benchmarks service --requests 200 --tenants 4 --json -
    """
    models = Settings().models
    chosen = model or ("mnist-tiny" if (models / "mnist-tiny").exists() else "mnist-fast")
    images = data.load(agreement_benchmark.read_card(models / chosen)["dataset"]).test.images[:requests]
    result = service_benchmark.measure(
        models, chosen, images=images, tenants=tenants, in_flight=in_flight, engine=engine
    )
    write(result, json)
    raise typer.Exit(1 if result["lost"] or result["crossed"] else 0)


if __name__ == "__main__":
    cli()
