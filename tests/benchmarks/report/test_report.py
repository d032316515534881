"""The page is drawn from stored results alone, says what is missing, and reuses what is there."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from ciphershift.benchmarks.cli import app
from ciphershift.benchmarks.harness import results
from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.networks.ablation import Variant
from ciphershift.benchmarks.networks.agreement import read_card
from ciphershift.benchmarks.report import commands, page, plan, readme, tables, zoo
from ciphershift.benchmarks.report.figures import accuracy_against, pareto
from ciphershift.benchmarks.report.lookups import SETS, by_network, current, lookups
from ciphershift.benchmarks.report.photographs import photographs
from ciphershift.benchmarks.report.points import Fit, Point, points
from ciphershift.benchmarks.report.readme import BEGIN, END
from ciphershift.benchmarks.report.sections import SECTIONS, _she
from ciphershift.benchmarks.report.stored import MissingError, Stored
from ciphershift.benchmarks.report.style import LIGHT
from ciphershift.benchmarks.report.whole import whole
from ciphershift.he_layers.crypto import params
from ciphershift.server.settings import Settings


def peer(system: str, *, accuracy: float, seconds: float, name: str = "tenseal", **members: Any) -> dict[str, Any]:
    return (
        envelope("peers")
        | {
            "peer": name,
            "system": system,
            "version": "1",
            "activation": "look-up" if name == "ciphershift" else "square",
            "topology": "t",
            "settings": "s",
            "lookups": 330,
            "lookup_error_4bit": 1e-3 if name == "ciphershift" else None,
            "accuracy_clear": accuracy,
            "accuracy_simulated": accuracy,
            "accuracy_encrypted": 1.0,
            "accuracy_encrypted_n": 5,
            "seconds_per_image": seconds,
            "p10_s": seconds,
            "p90_s": seconds,
            "keygen_s": 1.0,
            "upload_bytes": 5000,
            "key_bytes": 10_000_000,
            "security_bits": 128,
        }
        | members
    )


YARDSTICK = {"model_name": "mnist-fast", "program": read_card(Settings().models / "mnist-fast")["digest"]}
LAYER_NOISE = {
    "layer": "conv",
    "values": 144,
    "encrypted_std": 1.02,
    "simulated_std": 1.0,
    "ratio": 1.02,
    "ratio_std": 0.06,
}
LOOKUPS = [
    *(
        envelope("primitives", threads=threads, params=params.get(name))
        | {"op": op, "median_us_per_item": us / at, "p10": us / at, "p90": us / at, "ratio_to_floor": 1.25}
        | ({"ratio": 1 / at} if at > 1 else {})
        | {"batch": 128}
        for at, name in enumerate(SETS, 1)
        for op, us in (("lookup", 6000.0), ("bootstrap", 5400.0))
        for threads in (1, 2)
    ),
    envelope("primitives")
    | {"peer": "bulk", "system": "Bulk", "version": "1", "settings": "s", "op": "lookup_4bit", "threads": 2}
    | {"batch": 65536, "median_us_per_item": 244.1, "seconds_per_call": 8.0, "lookup_error": 0.0},
]


ENGINES = {
    name: {"median_s": median, "coordinator_cpu_s": coordinator, "workers_cpu_s": workers, "differ": 0}
    for name, median, coordinator, workers in (
        ("local://?workers=1&threads=1", 2.0, 0.0, 2.0),
        ("local://?workers=1&threads=2", 1.25, 0.0, 2.5),
        ("ray://?workers=1&threads=1", 2.1, 0.1, 2.0),
        ("ray://?workers=2&threads=1", 1.4, 0.15, 2.5),
        ("ray://?workers=4&threads=1", 1.5, 0.2, 2.5),
    )
}


def _stolen(queries: int, agreement: float) -> dict[str, Any]:
    return {"queries": queries, "attack": "distillation", "agreement": agreement, "weights_error": 0.25}


def records() -> list[dict[str, Any]]:
    layers = [{"layer": "conv relu", "measured_seconds": 0.5}, {"layer": "dense", "measured_seconds": 0.1}]
    kinks = {"queries": 100, "attack": "critical points", "agreement": 0.6, "weights_error": 0.1}
    stages = {"keys": 0.0, "encrypt": 0.01, "transfer": 0.01, "server": 0.6, "decrypt": 0.01}
    return [
        peer("ciphershift, mnist-she", accuracy=0.99, seconds=1.0, name="ciphershift"),
        peer("TenSEAL, tutorial network", accuracy=0.98, seconds=0.5, upload_bytes=477_000),
        envelope("peers") | {"peer": "orion", "system": "Orion", "skipped": "not installed: install.sh orion"},
        envelope("agreement")
        | {"program": "of an older network", "model": "mnist-she"}
        | {"bootstraps_per_image": 330, "agree": 5, "images": 5, "median_s": 0.63, "p90_s": 0.7}
        | {"p10_s": 0.6, "stage_median_s": stages, "upload_bytes": 4600, "download_bytes": 5700}
        | {"server_peak_memory_bytes": 1e8, "accuracy_simulated": 0.9, "layer_noise": [LAYER_NOISE]},
        *LOOKUPS,
        envelope("cost") | {"model": "mnist-she", "layers": layers},
        *(
            envelope("growth", threads=2)
            | {"params": "P", "maps": maps, "lookups": 169 * maps, "predicted_s": 0.2 + maps, "median_s": 0.2 + maps}
            | {"p10_s": 0.19 + maps, "p90_s": 0.21 + maps, "samples": 3}
            for maps in (1, 2, 4)
        ),
        *(
            envelope("throughput")
            | {"model": "m", "engine": "local://?workers=1&threads=2", "batch": batch, "images_per_second": 1.0}
            | {"median_s": batch, "samples": 1}
            for batch in (1, 2)
        ),
        *(
            envelope("parameters")
            | {"model": "m", "params": "k 4", "noise_factor": factor, "input_noise": 5e-3 * factor}
            | {"own_input_noise": 5e-3, "lookup_error_4bit": 1e-3, "predicted_s": 1.0, "key_bytes": 1e7}
            | {"images": 10, "accuracy_simulated": 0.99, "agreement_simulated": 1.0, "security_bits": 132.0}
            for factor in (1.0, 2.0)
        ),
        *(
            envelope("ablation")
            | {
                "dataset": "mnist",
                "variant": variant,
                "seed": 1,
                "accuracy": 0.98,
                "standard_error": 0.001,
                "epochs": 4,
            }
            for variant in (
                asdict(Variant(exponents=4, noise=1.0)),
                asdict(Variant(activation="square", pool="average")),
            )
        ),
        envelope("words")
        | {"model": "words-rnn", "figures": {"LSTM": [120.0, 140.6]}, "perplexity_simulated": 138.71}
        | {"median_s": 12.0, "lookups": 7500, "upload_bytes": 15_000},
        envelope("conversion")
        | {
            "model": "m",
            "dataset": "d",
            "folds": True,
            "repeats": [{"float": 0.9, "converted": 0.88, "tuned": 0.9}] * 2,
        }
        | {"loss_points": {"converted": 2.0, "tuned": 0.0}, "loss_deviation": {"converted": 0.5, "tuned": 0.1}},
        envelope("estimates", threads=2)
        | {"params": "P", "network": "alexnet", "lookups": 10**6, "products": 10**9, "predicted_s": 4000.0}
        | {"lookup_s": 0.0038, "upload_bytes": 1e6, "largest_map_bytes": 1e9},
        envelope("imagenet", threads=2)
        | {"params": "P", "model": "resnet18", "side": 224, "lookups": 10**6, "classes": 1000, "predicted_s": 990.0}
        | {"measured_s": 1000.0, "ratio": 0.99, "eta_over_measured": [0.95, 1.0, 1.05], "encrypt_s": 0.5}
        | {"upload_bytes": 800_000, "answer_bytes": 12_000, "peak_memory_bytes": 4e9, "logit_noise": 0.5}
        | {"logit_noise_simulated": 0.4, "logit_spread": 2.0, "class_encrypted": 3, "class_plain": 3}
        | {
            "chains": [
                {"layer": "relu", "lookups": 900, "predicted_s": 9.0, "measured_s": 10.0}
                | {"encrypted_std": 1.02, "simulated_std": 1.0},
                {"layer": "dense", "lookups": 100, "predicted_s": 1.0, "measured_s": 1.0},
            ]
        },
        envelope("first-stage")
        | {
            "network": "a stage",
            "lookups": 100,
            "predicted_s": 1.0,
            "measured_s": 1.1,
            "ratio": 0.9,
            "upload_bytes": 9,
        },
        *(
            envelope("extraction")
            | {"model": "m", "answer": answer, "coarse_levels": 15, "served_agreement": 0.99, "without_queries": None}
            | {"points": [_stolen(10, 0.5), _stolen(100, 0.98), kinks]}
            for answer in ("logits", "class", "real")
        ),
        envelope("fairness")
        | {"model": "m", "engine": "e", "waiting": 500, "left": 476, "job_seconds": 1.5, "singles": 10}
        | {"median_wait_jobs": 0.652, "longest_wait_jobs": 1.711},
        envelope("faults")
        | {"model": "m", "jobs": 30, "kills": {"server": 3, "worker": 5}, "drains": 6, "swaps": 8, "sent_again": 2}
        | {
            "outcomes": {"completed": 27, "failed: worker_lost": 2},
            "lost": 1,
            "wrong": 0,
            "longest_drain_s": 3.5,
            "drain_bound_s": 4.0,
        },
        envelope("crafted")
        | {
            "model": "m",
            "profile": "fast",
            "windows": 2.0,
            "safe_windows": 3.251,
            "accuracy": 0.98,
            "tried": 6720,
            "ordinary": {"difference": 0.5, "flips": 0, "images": 100},
        }
        | {"crafted": {"difference": 3.25, "flips": 16, "reproducible": 15, "images": 16}},
        envelope("engines", threads=1)
        | {
            "model": "m",
            "images": 1,
            "lookups": 1000,
            "repetitions": 3,
            "bytes_per_lookup": 16000,
            "cores": 2,
            "params": "P",
        }
        | {"engines": ENGINES},
        envelope("yardstick")
        | YARDSTICK
        | {"size": "single", "params": "P", "Timing": {"Key Generation": "1.0s"}, "Bandwidth": {"Keys": "11.7M"}}
        | {"Server Reported": {"Total": "1.0s"}}
        | {"Quality": {"Encrypted model quality": {"total_samples": 1, "accuracy": 1.0}}},
        envelope("yardstick-harness")
        | YARDSTICK
        | {"size": "small", "harness": "c1395f2", "params": "P"}
        | {"report": {"per_stage": {"Client: Key Generation": "1.5s"}, "bandwidth": {"Client: Keys": "11.7M"}}}
        | {"Quality": {"Encrypted model quality": {"total_samples": 15, "accuracy": 0.9333}}},
    ]


def place(name: str) -> str:
    """A place for one of the README's tables, with an old one in it."""
    return f"{BEGIN.format(name=name)}old\n{END.format(name=name)}"


def stored_in(folder: Path, lines: Sequence[dict[str, Any]]) -> Path:
    for record in lines:
        results.store(record, folder)
    return folder


def test_the_page_and_all_figures_are_drawn_from_stored_results(tmp_path: Path) -> None:
    measured = records()
    of_mnist_she = [r for r in measured if r.get("model") == "mnist-she"]
    stored = stored_in(tmp_path / "results", measured + [r | {"model": "left-the-zoo"} for r in of_mnist_she])
    written = tmp_path / "README.md"
    written.write_text(place("systems") + place("networks"))
    page_options = ["--page", str(tmp_path / "docs" / "page.md"), "--readme", str(written)]
    options = ["report", "--stored", "--results", str(stored), *page_options]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "old\n" not in written.read_text()
    assert "| **mnist-tiny** |" in written.read_text()
    text = (tmp_path / "docs" / "page.md").read_text()
    assert "Not measured yet" not in text
    assert text.index("## Where others win") < text.index("## Side by side")
    assert "**TenSEAL, tutorial network** answers faster: 0.5 s against 1 s of mnist-she" in text
    assert "Orion is missing: not installed: install.sh orion" in text
    assert "uploads less" not in text
    assert len(of_mnist_she) >= 2
    assert "left-the-zoo" not in text
    assert "| m | all logits | 99.0 % | – | 50.0 % (d), error 0.25 (d) | 98.0 % (d), error 0.1 (c) |" in text
    assert "| m | in the clear, not rounded | 99.0 % |" in text
    assert "m, in the clear" not in text, "no quota is for answers that nobody serves"
    assert "m, class alone: a quota of 10 answers in all keeps these attacks below 90% agreement" in text
    assert "| m | fast | 2 | 3.25 | 98.00 % | 0.50 | 0 of 100 | 6 720 | 3.25 | 15 of 16 |" in text
    assert "| m | 500 | 476 | 10 | 1.5 s | 0.65 | 1.71 |" in text
    assert "| m | 30 | 3 + 5 | 6 | 8 | 2 | 2 | 1 | 0 | 3.50 s of 4 s |" in text
    figures = "1 000 000 | 16.7 min | 0.99 | 0.95 to 1.05 | 4 GB | 800 KB | 12 KB | 0.250 | 0.200 |"
    assert f"| resnet18 | 224 | P | 2 cores, {envelope('imagenet')['isa']} | {figures}" in text
    assert "| dense | 100 | 1 s | 1 s | – | – |" in text
    beside = "words-rnn: 138.7 perplexity of another text (simulated); a float LSTM of as many units has 140.6"
    assert f"| 89.8 perplexity | 9.6 min | – | 9.4 MB | {beside} | 12 s | 7500 look-ups | 15 KB |" in text
    assert "| step | mnist-fast, 15 images, P |" in text
    assert "| Client: Key Generation | 1.5s |" in text
    for name in (
        "accuracy-latency",
        "accuracy-upload",
        "accuracy-latency-cifar10",
        "stages",
        "growth",
        "throughput",
        "parameters",
        "extraction",
    ):
        for theme in ("light", "dark"):
            assert f"figures/{name}-{theme}.svg" in text
            assert (tmp_path / "docs" / "figures" / f"{name}-{theme}.png").stat().st_size > 5000


def test_what_no_machine_changes_is_taken_from_all() -> None:
    there = envelope("extraction") | {"model": "a", "cpu": "another one"}
    stored = Stored([there, envelope("extraction") | {"model": "b"}])
    assert [record["model"] for record in stored.newest("extraction", "model", command="")] == ["b"]
    assert [r["model"] for r in stored.newest("extraction", "model", command="", anywhere=True)] == ["a", "b"]


def test_an_image_that_takes_an_hour_is_shown_whatever_machine_it_was_measured_on(tmp_path: Path) -> None:
    (here,) = (record for record in records() if record["benchmark"] == "imagenet")
    there = here | {"isa": "another", "model": "alexnet", "measured_s": 1800.0}
    text = whole(Stored([there, here]), tmp_path)
    assert "| alexnet | 224 | P | 2 cores, another |" in text
    assert f"| resnet18 | 224 | P | 2 cores, {here['isa']} |" in text
    assert "30 min" in _she(Stored([there, here]), tmp_path)


def runs_of(name: str, models: Path, *, agree: int) -> dict[str, Any]:
    return (
        envelope("agreement")
        | {"model": name, "program": json.loads((models / name / "card.json").read_text())["digest"]}
        | {"agree": agree, "images": 7, "median_s": 1.5, "upload_bytes": 4600, "download_bytes": 5700}
        | {"key_bytes": 10**7, "server_peak_memory_bytes": 10**9}
    )


def of_cifar10(system: str, **members: Any) -> dict[str, Any]:
    about = {"peer": "concrete_ml-cifar10", "system": system, "activation": "look-up", "topology": "VGG"}
    return envelope("peers") | about | members


def test_photographs_stand_apart_from_digits_and_what_runs_here_from_what_is_published(tmp_path: Path) -> None:
    figures: dict[str, Any] = {"accuracy_clear": None, "accuracy_published": 0.86, "seconds_per_image": 2400.0}
    figures |= {"agree_with_clear": 0, "accuracy_encrypted_n": 1, "settings": "its own"}
    runs = [
        runs_of("cifar10-fast", Settings().models, agree=7),
        of_cifar10("One", **figures, upload_bytes=50_000, key_bytes=10**9),
        of_cifar10("Two", skipped="ended after 4800 s"),
    ]
    stored = Stored([*records(), *runs])
    text = photographs(stored, tmp_path)
    assert (
        "- One: 0 of 1 encrypted images got the class of its plaintext network, whose weights are random (its own)"
        in text
    )
    rows = by_name(text)
    assert rows.keys() == {"cifar10-fast", "One"}
    assert rows["One"] == "| **One** | look-up | VGG | 86.00 % | 40 min | 50 KB | 1 GB | here |"
    assert "- Two is missing: ended after 4800 s" in text
    assert "| SHE ([C-B-A-C-B-A-P]x3-F-F) | look-up | estimated by its authors | 92.54 % | 37.6 min | 160 MB |" in text
    others = dict(SECTIONS)["Side by side"](stored, tmp_path)
    assert "One" not in others and "Two" not in others
    assert "Orion is missing" in others and "Orion is missing" not in text


def test_published_times_beat_nothing_in_a_figure() -> None:
    axes, alone = Figure().subplots(1, 2)
    ours, slower, better = points(
        [
            peer(name, accuracy=right, seconds=s)
            for name, right, s in (("a", 0.9, 2.0), ("c", 0.92, 3.0), ("b", 0.95, 1.0))
        ]
    )
    published = replace(better, published=True)
    accuracy_against([ours, slower, published], lambda point: point.seconds, "s")(axes, LIGHT)
    (front,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert np.asarray(front.get_xdata()).tolist() == [2.0, 3.0]
    accuracy_against([ours, published], lambda point: point.seconds, "s")(alone, LIGHT)
    assert all(line.get_linestyle() != "--" for line in alone.lines), "one point is no line"
    hollow = {
        line.get_label(): line.get_markerfacecolor() == LIGHT.background for line in axes.lines if line is not front
    }
    assert hollow == {"1  b": True, "2  c": False, "3  a": False}


def test_accuracies_of_ours_are_those_with_noise() -> None:
    ours = peer("ciphershift, x", accuracy=0.99, accuracy_simulated=0.98, seconds=1.0, name="ciphershift")
    theirs = peer("y", accuracy=0.97, seconds=1.0)
    del theirs["accuracy_simulated"]
    assert [point.accuracy for point in points([ours, theirs])] == [0.98, 0.97]


def test_the_yardstick_of_another_network_is_not_shown(tmp_path: Path) -> None:
    changed = [r | {"program": "0" * 64} if "yardstick" in r["benchmark"] else r for r in records()]
    with pytest.raises(MissingError, match="ciphershift bench yardstick"):
        dict(SECTIONS)["The neutral yardstick"](Stored(changed), tmp_path)


def test_layers_beyond_their_spread_are_counted() -> None:
    far = {"layer": "far", "ratio": 1.1, "ratio_std": 0.03, "values": 2000, "encrypted_std": 1.1, "simulated_std": 1.0}
    text = tables.layer_noise([{"model": "m", "layer_noise": [far, LAYER_NOISE]}])
    assert (
        "| m | 1 | 1.10 to 1.10 | 1 | 1.02 to 1.02 | 1 | 0 |" in text
    )  # 0.1 are 2.8 times the root of 0.03^2 + 0.02^2


def test_a_second_view_is_written_once_in_a_topology() -> None:
    view = [
        {"layer": "conv", "output": [6, 7, 7]},
        {"layer": "relu", "output": [6, 7, 7]},
        {"layer": "linear", "output": [10]},
    ]
    mirror, mean = {"layer": "gather", "output": [1, 28, 28]}, {"layer": "add", "output": [10]}
    assert zoo.topology([*view, mirror, *view, mean]) == "2 views x (C6-A-F10)"
    assert "views" not in zoo.topology([*view, mirror, *view[1:], mean])


def by_name(rows: str) -> dict[str, str]:
    return {line.split("**")[1]: line for line in rows.splitlines() if line.startswith("| **")}


def test_the_tables_have_each_network_with_its_newest_run_or_none() -> None:
    models, name = Settings().models, "mnist-fast"
    runs = [runs_of(name, models, agree=5), runs_of(name, models, agree=6)]
    found = zoo.cards_with_runs(runs, models)
    short, full = by_name(zoo.short(found)), by_name(zoo.full(found))
    assert short.keys() == full.keys() == {path.parent.name for path in models.glob("*/card.json")}
    assert short[name].startswith("| **mnist-fast** | mnist | ")
    assert short[name].count("|") == 6
    assert short[name].endswith("| 1.5 s |")
    assert short["mnist-tiny"].endswith("| – |")
    assert "| C6-A±-C24-A±-F224-A±-F10 | 992 |" in full[name]
    assert full[name].endswith("| 6 of 7 | 1.5 s | 4.6 KB, 5.7 KB | 10 MB | 1 GB |")
    assert full["mnist-tiny"].endswith("| – | – | – | – | – |")
    assert "| F140-F140-13 x (A-F140-F140-F140-+)-A-F10 |" in full["rows-rnn"]
    assert zoo.agreement(found) == (6, 7)
    untimed = {key: value for key, value in runs[1].items() if key != "median_s"}
    found = zoo.cards_with_runs([untimed], models)
    assert by_name(zoo.short(found))[name].endswith("| – |")
    assert by_name(zoo.full(found))[name].endswith("| 6 of 7 | – | 4.6 KB, 5.7 KB | 10 MB | 1 GB |")
    of_another = [runs[1] | {"program": "of an older network"}]
    assert zoo.agreement(zoo.cards_with_runs(of_another, models)) == (0, 0)


def test_the_readme_shows_the_fastest_of_each_peer_beside_two_of_ours() -> None:
    measured = [
        peer("ciphershift, mnist-tiny", accuracy=0.99, seconds=0.3, name="ciphershift"),
        peer("ciphershift, mnist-she", accuracy=0.995, seconds=4.0, name="ciphershift"),
        peer("T, slow", accuracy=0.98, seconds=2.0),
        peer("T, fast", accuracy=0.97, seconds=0.1),
        peer("O", accuracy=0.98, seconds=1.0, name="orion", key_bytes=None),
    ]
    head, _, *rows = readme.systems(measured).splitlines()
    assert head == "| system | activation | accuracy | s per image | upload | keys |"
    assert [row.split(" | ")[0].strip("| *") for row in rows] == ["T, fast 1", "ciphershift, mnist-tiny", "O 1"]
    assert rows[2].endswith("| 5 KB | – |")


def test_the_readme_keeps_its_text_and_must_have_a_place_for_the_tables(tmp_path: Path) -> None:
    target = tmp_path / "README.md"
    target.write_text(f"before\n{place('networks')}between\n{place('systems')}after\n")
    readme.write([], Settings().models, target)  # nobody has measured other systems: their table stays
    assert target.read_text().count("old\n") == 1
    readme.write(records(), Settings().models, target)
    text = target.read_text()
    assert "old\n" not in text
    for kept in ("before\n", "between\n", "after\n", "TenSEAL, tutorial network", "**mnist-tiny**"):
        assert kept in text
    target.write_text(place("networks"))
    with pytest.raises(ValueError, match="lacks the lines"):
        readme.write(records(), Settings().models, target)


def test_no_commit_with_uncommitted_changes_is_named_and_its_figures_are_called_older(tmp_path: Path) -> None:
    clean, between = (envelope("noise") | {"commit": commit} for commit in ("aaaaaaaaaaaa", "bbbbbbbbbbbb-dirty"))
    page.write([clean, between | {"benchmark": "security"}], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "commits aaaaaaaaaaaa\n" in text
    assert "measured before their change was committed: 1 of security on top of bbbbbbbbbbbb\n" in text
    assert "dirty" not in text


def test_each_missing_measurement_is_said_with_its_command(tmp_path: Path) -> None:
    page.write([], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    published = 3  # CIFAR-10, SHE's tables, and what is published elsewhere are drawn without a measurement, as are the zoo's cards
    assert text.count("**Not measured yet.**") == len(SECTIONS) - published - 1
    assert "`ciphershift bench growth` measures it" in text
    only_growth = [record for record in records() if record["benchmark"] == "growth"]
    page.write(only_growth, tmp_path / "page.md")
    assert "`ciphershift bench growth` measures it" not in (tmp_path / "page.md").read_text()


def test_a_stored_answer_of_this_machine_is_reused_and_another_machines_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def question(**members: object) -> plan.Question:
        def run() -> list[dict[str, Any]]:
            asked.append(members)
            return [envelope("growth") | members]

        return plan.Question(benchmark="growth", about="a question", members=members, run=run)

    monkeypatch.setattr(plan, "questions", lambda *, quick: [question(maps=1), question(maps=2)])
    monkeypatch.setattr(commands, "_prepare_peers", lambda: None)  # they may be installed here, and take minutes
    monkeypatch.setattr(page, "write", lambda records, target: None)
    monkeypatch.setattr(readme, "write", lambda records, models, target: None)
    elsewhere = envelope("growth") | {"maps": 2, "cpu": "another"}
    stored = stored_in(tmp_path, [envelope("growth") | {"maps": 1}, elsewhere])
    options = ["report", "--results", str(stored), "--page", str(tmp_path / "page.md")]
    assert CliRunner().invoke(app, options).exit_code == 0
    assert asked == [{"maps": 2}]
    assert CliRunner().invoke(app, options).exit_code == 0
    assert asked == [{"maps": 2}]
    assert CliRunner().invoke(app, [*options, "--fresh"]).exit_code == 0
    assert asked == [{"maps": 2}, {"maps": 1}, {"maps": 2}]


def test_a_full_run_does_not_make_do_with_quick_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def questions(*, quick: bool) -> list[plan.Question]:
        return [
            plan.Question(benchmark="growth", about="a question", run=lambda: [envelope("growth") | {"was": quick}])
        ]

    monkeypatch.setattr(plan, "questions", questions)
    monkeypatch.setattr(commands, "_prepare_peers", lambda: None)  # they may be installed here, and take minutes
    monkeypatch.setattr(page, "write", lambda records, target: None)
    monkeypatch.setattr(readme, "write", lambda records, models, target: None)
    options = ["report", "--results", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]
    for flags in (["--quick"], ["--quick"], [], [], ["--quick"]):
        assert CliRunner().invoke(app, [*options, *flags]).exit_code == 0
    assert [record["was"] for record in results.read(tmp_path / "results")] == [True, False]


def test_the_newest_answer_counts_and_machines_are_not_mixed() -> None:
    old, new, elsewhere = (
        envelope("growth") | {"maps": maps, "median_s": s} for maps, s in ((1, 1.0), (1, 2.0), (2, 9.0))
    )
    elsewhere["cpu"] = "another"
    assert Stored([elsewhere, old, new]).newest("growth", "maps", command="") == [new]


def test_where_others_win_compares_with_networks_that_are_as_accurate() -> None:
    fast_and_worse = peer("ciphershift, quick", accuracy=0.9, seconds=0.1, name="ciphershift")
    slow_and_better = peer("ciphershift, good", accuracy=0.99, seconds=2.0, name="ciphershift")
    systems = points([fast_and_worse, slow_and_better, peer("P", accuracy=0.95, seconds=1.0, keygen_s=9.0)])
    assert tables.where_others_win(systems) == [
        "**P** answers faster: 1 s against 2 s of good, 2 times less, at 95.00 % against 99.00 %."
    ]
    best = points([fast_and_worse, peer("P", accuracy=0.95, seconds=1.0)])
    assert tables.where_others_win(best) == [
        "**P** is more accurate than every network of ours here: 95.00 % in the clear."
    ]


def test_the_front_holds_what_nobody_beats_in_both() -> None:
    shares = {"a": (0.9, 1.0), "b": (0.95, 2.0), "c": (0.93, 3.0), "d": (0.99, 4.0), "e": (0.89, 1.0)}
    systems = points([peer(name, accuracy=share, seconds=cost) for name, (share, cost) in shares.items()])

    def seconds(point: Point) -> float:
        return point.seconds

    assert [point.label for point in pareto(systems, seconds)] == ["a", "b", "d"]


def test_the_fit_finds_the_law_behind_the_points() -> None:
    widths = [{"lookups": lookups, "median_s": 0.3 + 0.003 * lookups} for lookups in (100, 400, 1600, 6400)]
    fit = Fit.of(widths)
    assert (fit.start, fit.each) == pytest.approx((0.3, 0.003))
    assert json.dumps(fit.text) == '"0.30 s + 3.00 ms for each"'
    assert 0.7 < fit.exponent < 1.0


def test_a_bulk_look_up_wins_from_so_many_on_as_cost_its_time_one_by_one() -> None:
    text = lookups(LOOKUPS[:-1], LOOKUPS[-1:])
    assert "**8000 look-ups in a layer** ours are faster" in text  # 8 s at 6 / 3 ms of a core, on two
    assert f"| {SETS[-1]} | 2 (2 to 2), 0.33 | 2 (2 to 2), 0.33 |" in text
    assert "0.122 ms each if all are" in text
    assert "None was measured here" in lookups(LOOKUPS[:-1], [])


def test_what_was_measured_under_an_earlier_form_of_a_set_is_left_out() -> None:
    earlier = LOOKUPS[0] | {"params_id": "00" * 32}
    assert current([earlier, *LOOKUPS]) == LOOKUPS[:-1]


def test_whole_images_are_compared_by_set() -> None:
    assert by_network([]) == ""
    ratios = {"ratio": 0.52, "least_ratio": 0.5, "greatest_ratio": 0.55, "ratio_to": SETS[0], "repetitions": 9}
    text = by_network([{"model": "m", "params": SETS[-1], "measured_seconds": 0.25} | ratios])
    assert f"| m | {SETS[-1]} | 0.25 s | 0.52 (0.50 to 0.55) | 9 |" in text
