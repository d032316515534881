"""The sections of the page, in order: each drawn from stored records, or a MissingError with the command that makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.networks import agreement
from ciphershift.benchmarks.networks.imagenet import SIDE
from ciphershift.benchmarks.networks.layer_noise import KEYS
from ciphershift.benchmarks.report import figures, tables, zoo
from ciphershift.benchmarks.report.crafted import crafted
from ciphershift.benchmarks.report.estimates import estimated
from ciphershift.benchmarks.report.extraction import stolen
from ciphershift.benchmarks.report.lookups import SETS, by_network, current, lookups
from ciphershift.benchmarks.report.photographs import of_photographs, photographs
from ciphershift.benchmarks.report.points import Fit, Point, points
from ciphershift.benchmarks.report.published import published
from ciphershift.benchmarks.report.service import service
from ciphershift.benchmarks.report.stored import MissingError, Stored
from ciphershift.benchmarks.report.style import Draw, markdown, save
from ciphershift.benchmarks.report.whole import whole
from ciphershift.benchmarks.report.workers import workers
from ciphershift.server.settings import Settings

FIGURES = "figures"
DATASETS = ("mnist", "fashion-mnist", "cifar10")


def _figure(folder: Path, name: str, alternative: str, draw: Draw) -> str:
    save(folder, name, draw)
    return markdown(FIGURES, name, alternative)


def _systems(stored: Stored) -> list[Point]:
    return points(stored.newest("peers", "system", command="ciphershift bench report"))


def _wins(stored: Stored, folder: Path) -> str:
    sentences = tables.where_others_win(_systems(stored))
    return "\n".join(f"- {sentence}" for sentence in sentences) or "In no figure of the table below."


def _side_by_side(stored: Stored, folder: Path) -> str:
    systems = _systems(stored)
    about = (
        "Same machine, same test images; accuracies of our networks are simulated with the noise of the circuit, those of the peers are "
        "in the clear. Peers are trained without the last 5000 training images, most of our networks with them (their "
        "cards say which). For the peers their authors' settings, which `benchmarks/peers/` states. A "
        "peer's time is that of its server's call, as is ours here (through a server process it is a little more, see below). All have "
        "128 bits or more."
    )
    lines = [
        about,
        tables.systems(systems),
    ]
    missing = [record for record in stored.skipped() if not of_photographs(record)]
    lines += [f"- {record['system']} is missing: {record['skipped']}" for record in missing]
    return "\n\n".join(lines)


def _pareto(stored: Stored, folder: Path) -> str:
    systems = _systems(stored)
    against = figures.accuracy_against
    time = against(systems, lambda point: point.seconds, "seconds for one image, logarithmic")
    upload = against(systems, lambda point: point.upload_bytes, "bytes uploaded for one image, logarithmic")
    return "\n\n".join(
        (
            _figure(folder, "accuracy-latency", "Accuracy over seconds for one image, all systems", time),
            _figure(folder, "accuracy-upload", "Accuracy over bytes uploaded for one image, all systems", upload),
        )
    )


def _same_error(stored: Stored, folder: Path) -> str:
    lookups = [p for p in _systems(stored) if p.record["lookup_error_4bit"] is not None]
    return (
        "Systems of look-ups, sorted by the error of a look-up of 4-bit messages with one padding bit. In our fast profile no look-up is "
        "right or wrong, since the networks are trained with the noise; the figure is what the same noise would do to such a look-up.\n\n"
        + tables.same_error(lookups)
    )


def _stages(stored: Stored, folder: Path) -> str:
    models = Settings().models
    runs = zoo.there(stored.newest("agreement", "model", command="ciphershift bench agreement --model NAME"), models)
    timed = agreement.timed(runs)
    layers = zoo.there(stored.newest("cost", "model", command="ciphershift bench cost --model NAME"), models)
    rows = [
        (
            r["model"],
            r["bootstraps_per_image"],
            f"{r['agree']} of {r['images']}",
            f"{r['median_s']:.3g} ({r.get('p10_s', r['median_s']):.3g} to {r['p90_s']:.3g})",
            *(f"{1e3 * r['stage_median_s'][stage]:.0f}" for stage in figures.STAGES),
            f"{tables.size(r['upload_bytes'])}, {tables.size(r['download_bytes'])}",
            tables.size(r["server_peak_memory_bytes"]),
        )
        for r in timed
    ]
    head = (
        "network",
        "look-ups",
        "like the plaintext network",
        "s (10 to 90 %)",
        *(f"{stage}, ms" for stage in figures.STAGES),
    )
    figure = _figure(
        folder, "stages", "Seconds of each layer for one image, by network", figures.stages_and_layers(timed, layers)
    )
    about_noise = (
        "Noise of each layer's values in one encrypted image, decrypted layer by layer on this machine, against the simulation that the "
        "accuracies above stand on; what earlier layers add is in both. Values that share their inputs err together, so that the layers "
        "with few values, the last ones, say little. A ratio's standard deviation is that of the simulation's single draws and, besides, "
        f"{KEYS:g} for the one pair of keys that a run has ([measured](noise.md)); of independent ratios 5 % lie beyond two of them, 0.3 % "
        "beyond three."
    )
    stages = tables.table((*head, "request, answer", "memory"), rows)
    return "\n\n".join(
        ("Through a real server process on loopback.", stages, figure, about_noise, tables.layer_noise(runs))
    )


def _networks(stored: Stored, folder: Path) -> str:
    found = zoo.cards_with_runs(stored.records, Settings().models)
    return (
        "Accuracies are those of the test images; *simulated* draws the noise of the encrypted circuit. Times go from the client's call "
        "to its logits, through a server process on loopback. C: convolution with so many maps, F: dense layer with so many units, A: "
        "ReLU that clips, with batch norm (A±: of both signs); L: look-up of another function; P: max-pool; public: a first part that "
        "the client computes.\n\n"
        f"{zoo.full(found)}\n\nmnist-she has SHE's C-B-A-P-C-P-F-B-A-F, mnist-dshe its "
        "[C-B-A-C-B-A-P]x4-F-F, cifar10-she its [C-B-A-C-B-A-P]x3-F-F; cifar10-dshe stands for its ResNet-18, with strides in place of "
        "pools, and answers with the mean over the image and its mirror image; lenet5 is an ordinary PyTorch module, converted; "
        "mnist-exact has sparse ternary weights, and each of its encrypted logits is the plaintext network's."
    )


def _lookups(stored: Stored, folder: Path) -> str:
    command = "ciphershift bench primitives"
    records = stored.newest("primitives", "params", "op", "threads", "system", "settings", command=command)
    ours = current(records)
    if {record["params"] for record in ours if record["op"] == "lookup"} != set(SETS):
        raise MissingError(command)
    whole_images = current(stored.any("cost_by_set", "model", "params"))
    return lookups(ours, [record for record in records if "peer" in record]) + by_network(whole_images)


def _growth(stored: Stored, folder: Path) -> str:
    records = stored.newest("growth", "maps", command="ciphershift bench growth")
    networks = agreement.timed(zoo.there(stored.any("agreement", "model"), Settings().models))
    fit = Fit.of(records)
    figure = _figure(folder, "growth", "Seconds over look-ups, with a fit", figures.growth(records, networks, fit))
    return (
        f"Two convolutions and a dense layer, from {records[0]['maps']} to {records[-1]['maps']} maps, random weights, "
        f"{records[0]['params']}, {records[0]['threads']} threads: {fit.text} look-up; as a power law, seconds grow with the "
        f"{fit.exponent:.2f}th power of the look-ups. Networks of the zoo stand beside it, through a server.\n\n{figure}"
    )


def _throughput(stored: Stored, folder: Path) -> str:
    records = stored.newest("throughput", "engine", "batch", command="ciphershift bench throughput")
    figure = _figure(folder, "throughput", "Images a second over the batch", figures.throughput(records))
    return f"{records[0]['model']}, through a real server; {records[0]['samples']} samples of each.\n\n{figure}"


def _parameters(stored: Stored, folder: Path) -> str:
    records = stored.newest("parameters", "model", "noise_factor", command="ciphershift bench parameters --model NAME")
    rows = [
        (
            r["model"],
            r["params"],
            f"{1e3 * r['input_noise']:.2f}",
            tables.error(r["lookup_error_4bit"]),
            tables.percent(r["accuracy_simulated"]),
            tables.percent(r["agreement_simulated"]),
            tables.seconds(r["predicted_s"]),
            tables.size(r["key_bytes"]),
            r["security_bits"],
        )
        for r in records
    ]
    head = (
        "network",
        "set",
        "noise, 1e-3 turns",
        "4-bit error",
        "accuracy, simulated",
        "like without noise",
        "predicted",
        "keys",
        "bits",
    )
    figure = _figure(folder, "parameters", "Simulated accuracy over noise, by network", figures.parameters(records))
    return (
        "The cheapest set of at least 132 bits for each amount of noise, and what a network that was trained for its own set then does; "
        f"{records[0]['images']} test images.\n\n{figure}\n\n{tables.table(head, rows)}"
    )


def _ablation(stored: Stored, folder: Path) -> str:
    records = stored.newest("ablation", "dataset", "variant", "seed", command="ciphershift bench ablation --data mnist")
    datasets = [name for name in DATASETS if any(record["dataset"] == name for record in records)]
    worst = max(record["standard_error"] for record in records if record["accuracy"] > 0.5)
    return (
        "One small topology (8 and 16 maps, 64 units), one choice changed at a time, in simulation: few epochs "
        f"({records[0]['epochs']}, and as many again with the circuit), so that the differences are what to look at, not the level. A "
        f"standard error of one accuracy is at most {tables.percent(worst)}. Variants without a circuit are float modules, as CKKS would "
        "evaluate them; the others are trained and tested with the noise of the parameter set, times the factor.\n\n"
        + "\n".join(f"- {tables.best_variant(records, name)}" for name in datasets)
        + "\n\n"
        + tables.ablation(records, datasets)
        + "".join(
            f"\n\n{name} was not measured: `ciphershift bench ablation --data {name}`."
            for name in DATASETS
            if name not in datasets
        )
    )


def _conversion(stored: Stored, folder: Path) -> str:
    records = stored.newest("conversion", "model", command="ciphershift bench conversion --model NAME", anywhere=True)
    rows = [
        (
            record["model"],
            record["dataset"],
            f"{len(record['repeats'])} {'folds' if record['folds'] else 'seeds'}",
            *(
                tables.percent(sum(each[stage] for each in record["repeats"]) / len(record["repeats"]), 1)
                for stage in ("float", "converted", "tuned")
            ),
            *(
                f"{record['loss_points'][stage]:+.1f} ± {record['loss_deviation'][stage]:.1f}"
                for stage in ("converted", "tuned")
            ),
        )
        for record in records
    ]
    head = (
        "topology",
        "data",
        "repeats",
        "float",
        "converted",
        "fine-tuned",
        "lost by conversion",
        "lost after fine_tune",
    )
    return (
        "Ordinary networks with ReLUs that do not clip, in the topologies of the zoo: the float network, its conversion with default "
        "settings before any training, and after `fine_tune` with default settings. Test samples, with the noise of the circuit; losses in "
        "points, mean and deviation over the repeats.\n\n" + tables.table(head, rows)
    )


def _she(stored: Stored, folder: Path) -> str:
    she = published()["she"]
    runs = {record["model"]: record for record in agreement.timed(stored.any("agreement", "model"))}
    guesses = {record["network"]: record for record in stored.any("estimates", "network")}
    wholes = {r["model"]: r for r in stored.any("imagenet", "model", "side", anywhere=True) if r["side"] == SIDE}
    texts = {record["model"]: record for record in stored.any("words", "model")}
    rows = []
    for row in she["rows"]:
        name = row.get("ours", "")
        beside = (tables.NONE,) * 4
        if name in runs:
            run = runs[name]
            beside = (
                tables.percent(run["accuracy_simulated"]) + " (simulated)",
                tables.seconds(run["median_s"]),
                f"{run['bootstraps_per_image']} look-ups",
                tables.size(run["upload_bytes"]),
            )
        elif name in texts:
            record = texts[name]
            found, lstm = record["perplexity_simulated"], record["figures"]["LSTM"][1]
            beside = (
                f"{name}: {found:.1f} perplexity of another text (simulated); a float LSTM of as many units has {lstm:.1f}",
                tables.seconds(record["median_s"]),
                f"{record['lookups']} look-ups",
                tables.size(record["upload_bytes"]),
            )
        elif name in wholes:
            record = wholes[name]
            beside = (
                "not trained",
                tables.seconds(record["measured_s"]),
                f"{record['lookups']:.3g} look-ups",
                tables.size(record["upload_bytes"]),
            )
        elif name in guesses:
            guess = guesses[name]
            beside = (
                "not trained",
                f"{tables.seconds(guess['predicted_s'])}, predicted",
                f"{guess['lookups']:.3g} look-ups",
                tables.size(guess["upload_bytes"]),
            )
        quality = f"{row['accuracy']} %" if row["accuracy"] else f"{row['perplexity']} perplexity"
        rows.append(
            (
                row["data"],
                f"{row['network']}: {row['topology']}",
                quality,
                tables.seconds(row["seconds"]),
                row.get("operations", tables.NONE),
                tables.size(row["upload_bytes"]),
                *beside,
            )
        )
    head = (
        "data",
        "SHE's network",
        "accuracy",
        "latency",
        "operations",
        "upload",
        "ours: accuracy",
        "latency",
        "operations",
        "upload",
    )
    return (
        f"{she['source']}; {she['hardware']}. {she['remark']} Ours: the machine above, or for measured ImageNet rows that of the next "
        f"section, so that no ratio of the two columns means anything for the methods.\n\n{tables.table(head, rows)}"
    )


def _elsewhere(stored: Stored, folder: Path) -> str:
    rows = [(r["system"], r["activation"], r["work"], r["figure"], r["hardware"]) for r in published()["elsewhere"]]
    return "As published, each on its own hardware.\n\n" + tables.table(
        ("system", "activation", "work", "figure", "hardware"), rows
    )


def _estimates(stored: Stored, folder: Path) -> str:
    records = stored.newest("estimates", "network", command="ciphershift bench estimates")
    return estimated(records, stored.any("growth", "maps"), stored.any("first-stage", "params"))


def _yardstick(stored: Stored, folder: Path) -> str:
    command, models = "ciphershift bench yardstick", Settings().models
    records = zoo.unchanged(stored.newest("yardstick", "size", "model_name", command=command), models)
    if not records:
        raise MissingError(command)
    steps = list(records[0]["Timing"])
    columns = [
        f"{r['model_name']}, {tables.several(r['Quality']['Encrypted model quality']['total_samples'], 'image')}, {r['params']}"
        for r in records
    ]
    rows = [(step, *(r["Timing"][step] for r in records)) for step in steps]
    rows += [
        (f"server reported: {step}", *(r["Server Reported"][step] for r in records))
        for step in records[0]["Server Reported"]
    ]
    rows += [(name, *(r["Bandwidth"][name] for r in records)) for name in records[0]["Bandwidth"]]
    rows.append(("accuracy", *(f"{r['Quality']['Encrypted model quality']['accuracy']:.4f}" for r in records)))
    return (
        "The ml-inference workload of the FHE benchmarking suite (HomomorphicEncryption.org) in its own fields, each step a process of "
        "its own (`benchmarks/fhe_benchmarking/`); measured by our driver. Its leaderboard has the reference "
        f"alone: 7.63 s, accuracy 0.97, keys of 1 GB, on other hardware.\n\n{tables.table(('step', *columns), rows)}"
        + _by_harness(zoo.unchanged(stored.any("yardstick-harness", "size", "model_name"), models))
    )


def _by_harness(records: list[Record]) -> str:
    """The reports of the suite's own harness, in its words; empty if there are none."""
    if not records:
        return ""
    stages = list(dict.fromkeys(stage for record in records for stage in record["report"]["per_stage"]))
    qualities = [record["Quality"]["Encrypted model quality"] for record in records]
    columns = [
        f"{r['model_name']}, {tables.several(quality['total_samples'], 'image')}, {r['params']}"
        for r, quality in zip(records, qualities, strict=True)
    ]
    rows = [(stage, *(r["report"]["per_stage"].get(stage, "–") for r in records)) for stage in stages]
    rows += [(name, *(r["report"]["bandwidth"][name] for r in records)) for name in records[0]["report"]["bandwidth"]]
    rows.append(("accuracy", *(f"{quality['accuracy']:.4f}" for quality in qualities)))
    commits = ", ".join(dict.fromkeys(record["harness"] for record in records))
    return (
        f"\n\nBy the suite's own harness, unmodified (commit {commits}), on "
        f"{tables.several(records[0]['cores'], 'core')} ({records[0]['isa']}). How many images a size has is the choice of "
        "this version of the suite. Steps that begin with Harness are its own work:"
        f"\n\n{tables.table(('step', *columns), rows)}"
    )


SECTIONS: tuple[tuple[str, Callable[[Stored, Path], str]], ...] = (
    ("Where others win", _wins),
    ("Side by side", _side_by_side),
    ("The networks of the zoo", _networks),
    ("Accuracy against latency and upload", _pareto),
    ("CIFAR-10", photographs),
    ("At the same error of a look-up", _same_error),
    ("One look-up", _lookups),
    ("Where the time goes", _stages),
    ("Growth with the number of activations", _growth),
    ("Throughput", _throughput),
    ("Noise and accuracy by parameter set", _parameters),
    ("What each choice is worth", _ablation),
    ("What conversion loses", _conversion),
    ("Under load and faults", service),
    ("How many answers give a network away", stolen),
    ("Inputs made to be misread", crafted),
    ("Beside SHE's own tables", _she),
    ("ImageNet's size", whole),
    ("Past this machine", _estimates),
    ("On several workers", workers),
    ("The neutral yardstick", _yardstick),
    ("Published elsewhere", _elsewhere),
)
