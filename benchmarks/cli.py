"""`ciphershift bench`: one command for each question; what a command needs is imported when it runs."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from ciphershift.benchmarks.harness.envelope import envelope, write
from ciphershift.benchmarks.report import commands
from ciphershift.he_layers.crypto.params import DEFAULT
from ciphershift.server.settings import Settings, available_cpus

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure, on this machine.\n\nResults are JSON, one object a line; progress is shown on a terminal only.\n\n"
    "Examples:\n\n  ciphershift bench demo\n\n  ciphershift bench agreement --model mnist-fast --images 20",
)

app.add_typer(commands.app)

Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model in the zoo.")]
Params = Annotated[str, typer.Option("--params", help="Name of a parameter set.")]
Json = Annotated[str, typer.Option("--json", help="File to append the JSON object to; - is stdout.")]


@app.command()
def demo(
    model: Model = "mnist-tiny",
    larger: Annotated[
        str, typer.Option(help="A second model that classifies one digit; an empty name skips it.")
    ] = "mnist-she",
) -> None:
    """Classify ten encrypted digits through a real server, one more with a larger network, and compare with the plaintext networks.

    Example:

      ciphershift bench demo --model mnist-fast
    """
    from ciphershift.benchmarks.demo import run

    raise typer.Exit(0 if run(model, larger or None) else 1)


@app.command()
def agreement(
    model: Model,
    images: Annotated[int, typer.Option(min=1, help="How many test images.")] = 200,
    start: Annotated[int, typer.Option(min=0, help="The first test image.")] = 0,
    profile: Annotated[
        str | None, typer.Option(help="Precision profile that the model must have, fast or exact.")
    ] = None,
    times: Annotated[
        bool, typer.Option("--times/--no-times", help="Whether to keep times: not where others use the machine.")
    ] = True,
    json: Json = "-",
) -> None:
    """Count how often the encrypted network predicts what the plaintext network predicts.

    Examples:

      ciphershift bench agreement --model mnist-fast --images 200 --start 0 --json -

      ciphershift bench agreement --model mnist-exact --profile exact --images 20 --json -
    """
    from ciphershift.benchmarks.networks.agreement import count_agreement
    from ciphershift.he_layers.program import Program

    has = Program.load(Settings().models / model).profile
    if profile not in (None, has):
        raise typer.BadParameter(f"{model} is of the {has} profile, not of {profile}")
    write(count_agreement(model, images=images, start=start, times=times), json)


@app.command()
def accuracy(model: Model, json: Json = "-") -> None:
    """Accuracy on the whole test set: float, quantized, and simulated with the circuit's noise.

    Example:

      ciphershift bench accuracy --model mnist-she --json -
    """
    from ciphershift.benchmarks.networks.accuracy import measure_accuracy

    write(envelope("accuracy") | measure_accuracy(model), json)


@app.command()
def conversion(
    model: Annotated[str, typer.Option("--model", "-m", help="Name of a recipe, whose topology and data are taken.")],
    repeats: Annotated[int, typer.Option(min=2, help="Seeds, or folds of data without a test part.")] = 3,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("build") / "conversion",
    json: Json = "-",
) -> None:
    """Points that an ordinary ReLU network loses by conversion with default settings, before any training and after fine_tune.

    Example:

      ciphershift bench conversion --model chest-xray --json -
    """
    from ciphershift.benchmarks.networks.conversion import measure

    write(measure(model, repeats=repeats, work=work, show=commands.print_step), json)


@app.command()
def crafted(
    model: Model,
    generations: Annotated[int, typer.Option(min=1, help="Rounds of the search; each tries 112 images.")] = 300,
    windows: Annotated[
        float, typer.Option(min=1, help="Make the windows of look-ups so many times as wide before.")
    ] = 1,
    json: Json = "-",
) -> None:
    """Search for images on which the encrypted network differs most from the plaintext one.

    Example:

      ciphershift bench crafted --model mnist-tiny --windows 2 --json -
    """
    from ciphershift.benchmarks.networks.crafted import measure
    from ciphershift.he_layers.program import Program

    program = Program.load(Settings().models / model)
    write(measure(program, _test_split(model), generations=generations, windows=windows), json)


@app.command()
def security(params: Params = DEFAULT, json: Json = "-") -> None:
    """Every key and ciphertext that leaves the client, with its estimated bits.

    Example:

      ciphershift bench security --json -
    """
    from ciphershift.benchmarks.crypto.security import list_published_rows

    write(list_published_rows(params), json)


@app.command()
def search(
    model: Model,
    noise: Annotated[
        float, typer.Option(min=0.1, help="Noise that the network tolerates, as a multiple of its set's.")
    ] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="How many sets.")] = 10,
    json: Json = "-",
) -> None:
    """Find the cheapest parameter sets for a network: predicted time, noise, key bytes, security.

    Examples:

      ciphershift bench search --model mnist-fast --count 5 --json -

      ciphershift bench search --model mnist-exact
    """
    from ciphershift.benchmarks.crypto.search import find_parameter_sets

    results = list(find_parameter_sets(model, noise_factor=noise, count=count))
    for result in results:
        write(result, json)
    if not results:
        typer.echo(
            f"no set keeps the noise of every layer of {model} to {noise} of what it tolerates; try --noise nearer to 1",
            err=True,
        )
        raise typer.Exit(1)


@app.command()
def cost(
    model: Model,
    repetitions: Annotated[int, typer.Option(min=1, help="How often it is measured; the median counts.")] = 5,
    params: Annotated[
        list[str] | None,
        typer.Option(help="A parameter set to compare; may be repeated. What a server would take alone if left out."),
    ] = None,
    json: Json = "-",
) -> None:
    """Predicted against measured seconds of a network, layer by layer, in one run; or parameter sets against each other, in turns.

    Examples:

      ciphershift bench cost --model mnist-fast --json -

      ciphershift bench cost --model mnist-fast --params FAST_N512_BLOCK3 --params FAST_N512_BLOCK3_SHARED2
    """
    from ciphershift.benchmarks.networks.cost import compare_sets, compare_with_prediction

    if not params:
        write(compare_with_prediction(model, repetitions=repetitions), json)
        return
    for result in compare_sets(model, params, repetitions=repetitions):
        write(result, json)


@app.command()
def noise(params: Params = DEFAULT, json: Json = "-") -> None:
    """Noise of each primitive, measured against its formula.

    Example:

      ciphershift bench noise --json -
    """
    from ciphershift.benchmarks.crypto.noise import measure_noise

    for result in measure_noise(params):
        write(result, json)


@app.command()
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
    """Time of every primitive per item and core, how a bootstrap compares with its own arithmetic, and each set with the first one named.

    Examples:

      ciphershift bench primitives --json -

      ciphershift bench primitives --params FAST_N512_PAIRS --params FAST_N512_BLOCK3

      ciphershift bench primitives --peer concrete --peer openfhe
    """
    from ciphershift.benchmarks.crypto.primitives import NAMES, time_primitives
    from ciphershift.benchmarks.peers import systems

    others = [(name, [p for p in systems.LOOKUPS if p.folder.startswith(name)]) for name in peer or ()]
    if unknown := [name for name, found in others if not found]:
        raise typer.BadParameter(
            f"no peer with look-ups is called {', '.join(unknown)}; there are concrete and openfhe"
        )
    counts = tuple(threads or sorted({1, available_cpus()}))
    for result in time_primitives(params or NAMES, threads=counts, batch=batch):
        write(result, json)
    for each in (each for _, found in others for each in found):
        for result in systems.run_peer(each, quick=False):
            write(result, json)


@app.command()
def memory(
    source: Annotated[str, typer.Argument(help="A function that returns an nn.Module, as path/to/file.py:factory.")],
    params: Params = DEFAULT,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernel.")] = 1,
    json: Json = "-",
) -> None:
    """Peak memory of evaluating a network of this shape with random weights and without blind rotations.

    Example:

      ciphershift bench memory docs/examples/vgg9.py:vgg9 --json -
    """
    from ciphershift.benchmarks.networks.memory import measure_peak
    from ciphershift.models import cost_report, user_module
    from ciphershift.models.compiler import simplify, trace

    module = user_module.load_module(source)
    shape = user_module.input_shape(module, None)
    program = cost_report.stand_in(simplify.simplify(trace.read(module, shape), shape), shape, params)
    write(
        envelope("memory", threads=threads) | {"source": source} | measure_peak(program, threads=threads),
        json,
    )


@app.command()
def imagenet(
    model: Annotated[str, typer.Option("--model", "-m", help="alexnet, resnet18 or shufflenet.")] = "resnet18",
    side: Annotated[int, typer.Option(min=32, help="Height and width of the image in pixels.")] = 224,
    params: Params = DEFAULT,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernel.")] = available_cpus(),
    json: Json = "-",
) -> None:
    """A network of ImageNet's size on one encrypted image, whole: seconds by layer, memory, noise; at full size it takes tens of minutes.

    Examples:

      ciphershift bench imagenet --model alexnet --json -

      ciphershift bench imagenet --model resnet18 --side 64
    """
    from ciphershift.benchmarks.networks.imagenet import NETWORKS
    from ciphershift.benchmarks.networks.whole import evaluate_whole

    if model not in NETWORKS:
        raise typer.BadParameter(f"no network is called {model}; there are {', '.join(NETWORKS)}")
    write(evaluate_whole(model, side=side, parameter_set=params, threads=threads), json)


@app.command()
def words(
    folder: Annotated[Path, typer.Argument(help="That docs/examples/words.py wrote.")],
    windows: Annotated[int, typer.Option(min=1, help="Windows of 25 words that are encrypted.")] = 20,
    json: Json = "-",
) -> None:
    """Perplexity of the language model of docs/examples/words.py, and encrypted windows of its test novel through a real server.

    Example:

      ciphershift bench words build/words --json -
    """
    from ciphershift.benchmarks.networks.words import measure

    write(measure(folder, windows=windows), json)


@app.command()
def growth(
    params: Params = DEFAULT,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the kernel.")] = available_cpus(),
    repetitions: Annotated[int, typer.Option(min=1, help="How often each is measured; the median counts.")] = 3,
    json: Json = "-",
) -> None:
    """Seconds for one image by the number of look-ups: one topology in several widths.

    Example:

      ciphershift bench growth --json -
    """
    from ciphershift.benchmarks.networks.growth import time_widths

    for result in time_widths(params, threads=threads, repetitions=repetitions):
        write(result, json)


@app.command()
def throughput(
    model: Model = "mnist-tiny",
    repetitions: Annotated[int, typer.Option(min=1, help="How often each batch is sent.")] = 1,
    json: Json = "-",
) -> None:
    """Images per second through a real server, by the number of images in a call.

    Example:

      ciphershift bench throughput --model mnist-tiny --json -
    """
    from ciphershift.benchmarks.networks.throughput import time_batches

    models = Settings().models
    images = _test_split(model).images
    for result in time_batches(models, model, images, repetitions=repetitions):
        write(result, json)


@app.command()
def parameters(
    model: Model,
    images: Annotated[int, typer.Option(min=1, help="Test images to simulate.")] = 10_000,
    json: Json = "-",
) -> None:
    """Noise, simulated accuracy and predicted time of a network under cheaper and more expensive parameter sets.

    Example:

      ciphershift bench parameters --model mnist-fast --json -
    """
    from ciphershift.benchmarks.crypto.parameters import simulate_parameter_sets

    split = _test_split(model).part(0, images)
    for result in simulate_parameter_sets(model, split):
        write(result, json)


@app.command()
def engines(
    model: Model = "mnist-she",
    batch: Annotated[int, typer.Option(min=1, help="Images in the job.")] = 1,
    repetitions: Annotated[int, typer.Option(min=1, help="How often the job is sent.")] = 3,
    json: Json = "-",
) -> None:
    """Send the same job to each engine: one local worker on one and two threads, then one, two and four Ray workers.

    Example:

      ciphershift bench engines --model mnist-tiny --batch 8 --json -
    """
    from ciphershift.benchmarks.service.engines import compare_engines

    models = Settings().models
    images = _test_split(model).images[:batch]
    write(compare_engines(models, model, images=images, repetitions=repetitions), json)


@app.command()
def gpu(
    device: Annotated[str, typer.Option(help="torch's name of the device.")] = "cuda:0",
    seconds: Annotated[float, typer.Option(min=1, help="Time after which nothing new is begun.")] = 420.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few samples and the smallest network, for a machine without a GPU.")
    ] = False,
    json: Annotated[Path, typer.Option(help="File for the JSON object, written anew after every figure.")] = Path(
        "gpu.json"
    ),
) -> None:
    """Everything about a GPU in one run: correctness, look-ups a second, seconds an image and memory, beside this machine's CPU.

    Examples:

      ciphershift bench gpu --json gpu.json

      ciphershift bench gpu --device cpu --quick
    """
    from ciphershift.benchmarks.networks import gpu as gpu_benchmark

    result = gpu_benchmark.measure(
        Settings().models,
        lambda model: _test_split(model).images,
        json,
        device_name=device,
        seconds=seconds,
        quick=quick,
    )
    typer.echo(dumps(result, indent=2))


@app.command()
def faults(
    model: Model = "mnist-fast",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to submit.")] = 40,
    kills: Annotated[int, typer.Option(min=0, help="Kills of a server or of a worker.")] = 20,
    drains: Annotated[int, typer.Option(min=0, help="Restarts by SIGTERM, of one server after the other.")] = 5,
    swaps: Annotated[int, typer.Option(min=0, help="Replacements of the model by another version.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images in one job.")] = 2,
    json: Json = "-",
) -> None:
    """Kill and restart servers and workers and replace the model while jobs run; count lost and wrong jobs, and time the drains.

    Example:

      ciphershift bench faults --json -
    """
    from ciphershift.benchmarks.demo import samples
    from ciphershift.benchmarks.service.faults import kill_processes

    images, _ = samples()
    result = kill_processes(
        Settings().models, model, images=images, batch=batch, jobs=jobs, kills=kills, drains=drains, swaps=swaps
    )
    write(result, json)
    late = (result["longest_drain_s"] or 0) > result["drain_bound_s"]
    raise typer.Exit(1 if result["lost"] or result["wrong"] or late else 0)


@app.command()
def extraction(
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Name of a model in the zoo; or depth-2, depth-2-large: random networks."),
    ] = "depth-2",
    queries: Annotated[
        list[int] | None, typer.Option("--queries", help="Answers to steal with; may be given several times.", min=1)
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", help="logits, coarse or class; may be given several times. All if left out."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Batches of each training.", min=1, show_default="1500")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="Write the quota for all logits into the model's card.")] = False,
    json: Json = "-",
) -> None:
    """Steal a network by its answers: agreement of the copy and error of its weights, by number of queries and kind of answer.

    Examples:

      ciphershift bench extraction --model depth-2 --json -

      ciphershift bench extraction --model breast-cancer --queries 100 --queries 400 --card
    """
    from ciphershift.benchmarks.extraction import audit, quota, victims

    if unknown := set(answer or ()) - set(victims.KINDS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: no kind of answer; one of {', '.join(victims.KINDS)}")
    folder = Settings().models / model
    if card and not folder.is_dir():
        raise typer.BadParameter(f"{model} is no model of the zoo and has no card: leave --card out")
    for record in audit.attack(
        model, queries=queries or audit.QUERIES, kinds=answer or tuple(victims.KINDS), steps=steps or audit.STEPS
    ):
        write(record, json)
        if card and record["answer"] == "logits":
            quota.keep(folder, record)


@app.command()
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
    waiting: Annotated[
        int | None,
        typer.Option(min=1, help="Instead: let so many jobs of one tenant wait, and time single jobs of another."),
    ] = None,
    json: Json = "-",
) -> None:
    """Many tenants at once on one server: lost and crossed answers, waiting times, throughput against one client, memory.

    Examples:

      ciphershift bench service --requests 200 --tenants 4 --json -

      ciphershift bench service --waiting 500 --json -
    """
    from ciphershift.benchmarks.service.fairness import delay_single_jobs
    from ciphershift.benchmarks.service.load import send_from_tenants

    models = Settings().models
    chosen = model or ("mnist-tiny" if (models / "mnist-tiny").exists() else "mnist-fast")
    if waiting is not None:
        delayed = delay_single_jobs(models, chosen, image=_test_split(chosen).images[0], waiting=waiting, engine=engine)
        write(delayed, json)
        raise typer.Exit(1 if delayed["longest_wait_jobs"] > delayed["bound_jobs"] else 0)
    images = _test_split(chosen).images[:requests]
    result = send_from_tenants(models, chosen, images=images, tenants=tenants, in_flight=in_flight, engine=engine)
    write(result, json)
    raise typer.Exit(1 if result["lost"] or result["crossed"] else 0)


def _test_split(model: str) -> Any:
    """Returns the test images and labels of the data set that a network of the zoo was trained for."""
    from ciphershift.benchmarks.networks.agreement import read_card
    from ciphershift.models.training import sets

    return sets.of_card(read_card(Settings().models / model)).test
