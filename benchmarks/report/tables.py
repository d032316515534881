"""Tables of the page, from stored records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.networks.layer_noise import KEYS
from ciphershift.benchmarks.report.points import Point

NONE = "–"
MANY_VALUES = 1000
"""Enough that a layer's standard deviation is known to a few per cent."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(share: float | None, places: int = 2) -> str:
    """Returns a share in percent."""
    return NONE if share is None else f"{100 * share:.{places}f} %"


def seconds(value: float | None) -> str:
    """Three digits; minutes, hours and days where they say more."""
    if value is None:
        return NONE
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 3 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def size(count: float | None) -> str:
    """Bytes with a decimal unit."""
    if not count:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def several(count: int, thing: str) -> str:
    """A count with its noun."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def error(value: float | None) -> str:
    """The error of a look-up of 4-bit messages."""
    return NONE if value is None else "< 1e-40" if value < 1e-40 else f"{value:.1e}"


def systems(points: Sequence[Point]) -> str:
    """Every system that was measured, fastest first."""
    head = (
        "system",
        "activation",
        "topology",
        "accuracy",
        "encrypted: right of",
        "s per image (10 to 90 %)",
        "key generation",
        "upload",
        "keys",
        "4-bit look-up error",
        "bits",
    )
    rows = []
    for point in sorted(points, key=lambda point: point.seconds):
        record = point.record
        count = record["accuracy_encrypted_n"]
        rows.append(
            (
                f"**{record['system']}**" if point.kind == "ciphershift" else f"{record['system']} {record['version']}",
                record["activation"],
                record["topology"],
                percent(point.accuracy),
                f"{round(record['accuracy_encrypted'] * count)} of {count}",
                f"{point.seconds:.3g} ({record['p10_s']:.3g} to {record['p90_s']:.3g})",
                seconds(record["keygen_s"]),
                size(point.upload_bytes),
                size(point.key_bytes),
                error(record["lookup_error_4bit"]),
                record["security_bits"],
            )
        )
    return table(head, rows)


COSTS: tuple[tuple[str, Callable[[Point], float], Callable[[float], str]], ...] = (
    ("answers faster", lambda point: point.seconds, seconds),
    ("uploads less", lambda point: point.upload_bytes, size),
    ("needs smaller keys", lambda point: point.key_bytes, size),
    ("makes its keys faster", lambda point: float(point.record["keygen_s"]), seconds),
)


LISTED_LAYERS = 70


def layer_noise(runs: Sequence[Record]) -> str:
    """Ratio of encrypted to simulated noise by network; layers of networks without many steps in a part that is folded."""
    rows, layers = [], []
    for run in runs:
        cells: list[object] = []
        for many in (True, False):
            ratios = [layer["ratio"] for layer in run["layer_noise"] if (layer["values"] >= MANY_VALUES) == many]
            cells += [len(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else NONE]
        distances = [abs(layer["ratio"] - 1) / _deviation(layer) for layer in run["layer_noise"]]
        rows.append((run["model"], *cells, *(sum(distance > far for distance in distances) for far in (2, 3))))
        members = ("layer", "values", "encrypted_std", "simulated_std", "ratio")
        if len(run["layer_noise"]) <= LISTED_LAYERS:
            layers += [
                (run["model"], *(layer[member] for member in members), f"{_deviation(layer):.3f}")
                for layer in run["layer_noise"]
            ]
    large, ratio = f"layers of {MANY_VALUES} values or more", "encrypted / simulated"
    summary = table(
        ("network", large, ratio, "smaller layers", ratio, "beyond 2 standard deviations", "beyond 3"), rows
    )
    detail = table(
        ("network", "layer", "values", "encrypted, 1e-3 turns", "simulated", "ratio", "its standard deviation"), layers
    )
    return f"{summary}\n\n<details><summary>Every layer of networks that have at most {LISTED_LAYERS}</summary>\n\n{detail}\n\n</details>"


def _deviation(layer: Mapping[str, float]) -> float:
    """Of a layer's ratio: that of the simulation's draws and that of the keys."""
    return math.hypot(layer["ratio_std"], KEYS)


def where_others_win(points: Sequence[Point]) -> list[str]:
    """One sentence for each figure in which a peer is better than all our networks that are at least as accurate."""
    ours = [point for point in points if point.kind == "ciphershift"]
    sentences = []
    for peer in (point for point in points if point.kind != "ciphershift"):
        rivals = [point for point in ours if point.accuracy >= peer.accuracy]
        if not rivals:
            accuracy = percent(peer.accuracy)
            sentences.append(
                f"**{peer.label}** is more accurate than every network of ours here: {accuracy} in the clear."
            )
        for what, value, shown in COSTS if rivals else ():
            best = min(rivals, key=value)
            if 0 < value(peer) < value(best):
                sentences.append(
                    f"**{peer.label}** {what}: {shown(value(peer))} against {shown(value(best))} of {best.label}, "
                    f"{value(best) / value(peer):.2g} times less, at {percent(peer.accuracy)} against {percent(best.accuracy)}."
                )
    return sentences


def same_error(points: Sequence[Point]) -> str:
    """Look-up systems beside each other, those of one error rate together."""
    rows = [
        (
            point.record["system"],
            error(point.record["lookup_error_4bit"]),
            percent(point.accuracy),
            seconds(point.seconds),
            point.record["topology"],
        )
        for point in sorted(points, key=lambda point: (-point.record["lookup_error_4bit"], point.seconds))
    ]
    return table(("system", "4-bit look-up error", "accuracy", "per image", "topology"), rows)


def best_variant(records: Sequence[Record], dataset: str) -> str:
    """A sentence: which variant is the most accurate on a data set, and how our own default does there."""
    found = [record for record in records if record["dataset"] == dataset]
    best = max(found, key=lambda record: float(record["accuracy"]))
    ours = [record for record in found if record["variant"]["exponents"] == 4 and record["variant"]["noise"] == 1]
    text = (
        f"{dataset}: most accurate is {', '.join(_variant(best['variant'])[:3])} weights, {percent(best['accuracy'])}"
    )
    return text + (f"; as we evaluate it {percent(max(record['accuracy'] for record in ours))}." if ours else ".")


def _variant(variant: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Activation, pool, weights, noise."""
    names = {"relu": "ReLU (clipped)", "both": "ReLU (clipped) of both signs", "square": "square"}
    return (
        names.get(variant["activation"], f"polynomial of degree {variant['activation'][-1]}"),
        variant["pool"] + (", first layer public" if variant["public"] else ""),
        ("float" if variant["exponents"] is None else f"{variant['exponents']} powers of two")
        + (", clipping learned" if variant["clips"] else "")
        + (", averaged" if variant["averaged"] else ""),
        "no circuit"
        if variant["noise"] is None
        else f"{variant['noise']:g}" + (", by a factor drawn for each batch" if variant["drawn"] else ""),
    )


def ablation(records: Sequence[Record], datasets: Sequence[str]) -> str:
    """Accuracy of each variant on each data set; the mean over seeds where there are several."""
    variants: list[dict[str, Any]] = []
    for record in records:
        if record["variant"] not in variants:
            variants.append(record["variant"])
    variants.sort(
        key=lambda v: (v["noise"] is not None, v["noise"] or 0, v["exponents"] is not None, v["exponents"] or 0)
    )
    rows = []
    for variant in variants:
        cells = []
        for dataset in datasets:
            found = [r["accuracy"] for r in records if r["variant"] == variant and r["dataset"] == dataset]
            seeds = f" ({len(found)} seeds)" if len(found) > 1 else ""
            cells.append(percent(sum(found) / len(found)) + seeds if found else "not measured")
        rows.append((*_variant(variant), *cells))
    return table(("activation", "pool", "weights", "noise, of the set's", *datasets), rows)
