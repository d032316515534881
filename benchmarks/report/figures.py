"""The figures of the page, each drawn from stored records alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from benchmarks.report.points import Fit, Point
from benchmarks.report.style import MARKERS, Draw, Theme
from benchmarks.results import Record

STAGES = {
    "encrypt": "encrypt (client)",
    "transfer": "transfer and queue",
    "server": "network (server)",
    "decrypt": "decrypt (client)",
}
KINDS = ("ciphershift", "look-up", "polynomial", "square")
LABELS = {
    "ciphershift": "ciphershift: look-ups",
    "look-up": "peer: look-ups",
    "polynomial": "peer: polynomial",
    "square": "peer: squares",
}


def accuracy_against(points: Sequence[Point], cost: Callable[[Point], float], label: str) -> Draw:
    """Accuracy in the clear over a logarithmic cost, with the systems that none beats in both."""

    def draw(axes: Axes, theme: Theme) -> None:
        shown = [point for point in points if cost(point) > 0]
        for number, kind in enumerate(KINDS):
            these = [point for point in shown if point.kind == kind]
            if these:
                axes.plot(
                    [cost(point) for point in these],
                    [100 * point.accuracy for point in these],
                    MARKERS[number],
                    color=theme.palette[number],
                    markersize=8,
                    label=LABELS[kind],
                )
        front = pareto(shown, cost)
        axes.step(
            [cost(point) for point in front],
            [100 * point.accuracy for point in front],
            where="post",
            color=theme.text,
            linewidth=0.8,
            linestyle="--",
            label="not beaten in both",
        )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy in the clear, %")
        axes.margins(0.14, 0.18)
        _name_points(axes, shown, cost)
        axes.legend(loc="lower right", fontsize=8)

    return draw


def pareto(points: Sequence[Point], cost: Callable[[Point], float]) -> list[Point]:
    """Points that no other one beats in cost and accuracy, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (cost(point), -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def _name_points(axes: Axes, points: Sequence[Point], cost: Callable[[Point], float]) -> None:
    """Names beside the markers; those that lie close to each other go to different sides."""
    placed: list[tuple[float, float]] = []
    heights = [point.accuracy for point in points]
    span = (max(heights) - min(heights)) or 1.0
    for point in sorted(points, key=lambda point: -point.accuracy):
        x, y = math.log10(cost(point)), point.accuracy / span
        near = sum(abs(x - a) < 0.45 and abs(y - b) < 0.07 for a, b in placed)
        placed.append((x, y))
        offset = ((7, 5), (7, -11), (-7, 9), (-7, -15))[near % 4]
        axes.annotate(
            point.label,
            (cost(point), 100 * point.accuracy),
            xytext=offset,
            textcoords="offset points",
            ha="left" if offset[0] > 0 else "right",
            fontsize=7.5,
        )


def stages_and_layers(agreement: Sequence[Record], cost: Sequence[Record]) -> Draw:
    """For one image of each network: seconds by layer of the server, then the other stages."""

    def draw(axes: Axes, theme: Theme) -> None:
        layers = {record["model"]: record["layers"] for record in cost}
        names = [record["model"] for record in agreement if record["model"] in layers]
        for row, record in enumerate(r for r in agreement if r["model"] in layers):
            left = 0.0
            for number, layer in enumerate(layers[record["model"]]):
                seconds = layer["measured_seconds"]
                bar = axes.barh(
                    row, seconds, left=left, color=theme.palette[number % 4], edgecolor=theme.background, height=0.6
                )
                if seconds > 0.07 * max(r["median_s"] for r in agreement):
                    text = layer["layer"].replace(" ", "\n")
                    axes.bar_label(bar, [text], label_type="center", fontsize=6.5, color=theme.background)
                left += seconds
            rest = sum(record["stage_median_s"][stage] for stage in STAGES if stage != "server")
            axes.barh(
                row,
                rest,
                left=left,
                color=theme.palette[4],
                height=0.6,
                label="client and transfer" if not row else None,
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("seconds for one image (layers of the server, in order; those evaluated together are one bar)")
        axes.legend(loc="lower right", fontsize=8)

    return draw


def growth(records: Sequence[Record], networks: Sequence[Record], fit: Fit) -> Draw:
    """Seconds over look-ups: one topology wider and wider, networks of the zoo, the fit and the cost model."""

    def draw(axes: Axes, theme: Theme) -> None:
        x = np.array([record["lookups"] for record in records], dtype=float)
        y = np.array([record["median_s"] for record in records])
        below = y - np.array([record["p10_s"] for record in records])
        above = np.array([record["p90_s"] for record in records]) - y
        axes.errorbar(
            x, y, [below, above], fmt=MARKERS[0], color=theme.palette[0], markersize=7, label="measured, one topology"
        )
        line = np.geomspace(x.min(), x.max(), 50)
        axes.plot(line, fit.seconds(line), color=theme.palette[1], label=f"fit: {fit.text}")
        predicted = [record["predicted_s"] for record in records]
        axes.plot(x, predicted, ":", color=theme.palette[2], label="cost model")
        for record in networks:
            axes.plot(record["bootstraps_per_image"], record["median_s"], MARKERS[3], color=theme.palette[3])
            axes.annotate(
                record["model"],
                (record["bootstraps_per_image"], record["median_s"]),
                xytext=(6, -10),
                textcoords="offset points",
                fontsize=7.5,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("activations and comparisons (look-ups) for one image")
        axes.set_ylabel("seconds for one image")
        axes.legend(fontsize=8)

    return draw


def throughput(records: Sequence[Record]) -> Draw:
    """Images a second over the batch, one line per engine."""

    def draw(axes: Axes, theme: Theme) -> None:
        engines = sorted({record["engine"] for record in records})
        for number, engine in enumerate(engines):
            these = sorted((r for r in records if r["engine"] == engine), key=lambda r: r["batch"])
            axes.plot(
                [r["batch"] for r in these],
                [r["images_per_second"] for r in these],
                f"{MARKERS[number]}-",
                color=theme.palette[number],
                label=engine.removeprefix("local://?").replace("&", ", ").replace("=", " "),
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("images handed over at once")
        axes.set_ylabel("images per second")
        axes.legend(fontsize=8)

    return draw


def parameters(records: Sequence[Record]) -> Draw:
    """Simulated accuracy over the noise of a look-up's input, one line per network; the size of a marker is the predicted time."""

    def draw(axes: Axes, theme: Theme) -> None:
        for number, model in enumerate(sorted({record["model"] for record in records})):
            these = sorted((r for r in records if r["model"] == model), key=lambda r: r["input_noise"])
            color = theme.palette[number]
            axes.plot(
                [1e3 * r["input_noise"] for r in these],
                [100 * r["accuracy_simulated"] for r in these],
                f"{MARKERS[number]}-",
                color=color,
                label=f"{model} (trained at {1e3 * these[0]['own_input_noise']:.2f})",
            )
            for r in these:
                axes.annotate(
                    f"{r['predicted_s']:.1f} s",
                    (1e3 * r["input_noise"], 100 * r["accuracy_simulated"]),
                    xytext=(4, 6 if number else -12),
                    textcoords="offset points",
                    fontsize=7,
                    color=color,
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("noise of a look-up's input, thousandths of a turn; beside each: predicted seconds per image")
        axes.set_ylabel("accuracy, simulated, %")
        axes.legend(fontsize=8)

    return draw


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its file's name and what it shows, for those who cannot see it."""

    name: str
    alternative: str
    draw: Draw
