"""The figures of the page, each drawn from stored records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report.points import Fit, Point
from ciphershift.benchmarks.report.style import MARKERS, Draw, Theme

STAGES = ("encrypt", "transfer", "server", "decrypt")
"""Of one prediction, without making keys."""
KINDS = ("ciphershift", "look-up", "polynomial", "square")


def accuracy_against(
    points: Sequence[Point],
    cost: Callable[[Point], float],
    label: str,
    *,
    error: str = "wrong in the clear, % (up is better)",
) -> Draw:
    """Error over cost, both logarithmic, with the systems that none beats in both; numbered, since names would overlap.

    Markers of published times are hollow, and no others are compared with them.
    """

    def draw(axes: Axes, theme: Theme) -> None:
        shown = sorted((point for point in points if cost(point) > 0), key=lambda point: -point.accuracy)
        kinds = {kind: number for number, kind in enumerate(KINDS)}
        for number, point in enumerate(shown, 1):
            kind = kinds[point.kind]
            place = (cost(point), 100 * (1 - point.accuracy))
            axes.plot(
                *place,
                MARKERS[kind],
                color=theme.palette[kind],
                markerfacecolor=theme.background if point.published else theme.palette[kind],
                markersize=12,
                label=f"{number}  {point.label}",
            )
            axes.annotate(
                str(number),
                place,
                ha="center",
                va="center_baseline",
                fontsize=7,
                color=theme.palette[kind] if point.published else theme.background,
                fontweight="bold",
            )
        front = pareto([point for point in shown if not point.published], cost)
        if len(front) > 1:
            axes.step(
                [cost(point) for point in front],
                [100 * (1 - point.accuracy) for point in front],
                where="post",
                color=theme.text,
                linewidth=0.8,
                linestyle="--",
                label="not beaten in both",
                zorder=0,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_yaxis()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel(label)
        axes.set_ylabel(error)
        axes.margins(0.1)
        legend = axes.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, markerscale=0.6, title=_legend_title(shown)
        )
        legend.get_title().set_fontsize(7.5)

    return draw


def _legend_title(shown: Sequence[Point]) -> str:
    marks = {"ciphershift": "circle: ciphershift", "look-up": "square: look-ups"}
    marks |= {"polynomial": "triangle: polynomial", "square": "diamond: squares"}
    lines = [text for kind, text in marks.items() if any(point.kind == kind for point in shown)]
    return "\n".join([*lines, *(["hollow: as published"] if any(point.published for point in shown) else [])])


def pareto(points: Sequence[Point], cost: Callable[[Point], float]) -> list[Point]:
    """Points that no other one beats in cost and accuracy, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (cost(point), -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def stages_and_layers(agreement: Sequence[Record], cost: Sequence[Record]) -> Draw:
    """For one image of each network: the share of each layer of the server, then that of client and transfer."""

    def draw(axes: Axes, theme: Theme) -> None:
        layers = {record["model"]: record["layers"] for record in cost}
        shown = [record for record in agreement if record["model"] in layers]
        for row, record in enumerate(shown):
            rest = sum(record["stage_median_s"][stage] for stage in STAGES if stage != "server")
            parts = [(_ends(layer["layer"].split()), layer["measured_seconds"]) for layer in layers[record["model"]]]
            total = rest + sum(seconds for _, seconds in parts)
            left = 0.0
            for number, (name, seconds) in enumerate([*parts, ("client,\ntransfer", rest)]):
                color = theme.palette[4] if number == len(parts) else theme.palette[number % 4]
                width = 100 * seconds / total
                bar = axes.barh(row, width, left=left, color=color, edgecolor=theme.background, height=0.8)
                if width > 9:
                    axes.bar_label(
                        bar,
                        [f"{name}\n{seconds:.2g} s"],
                        label_type="center",
                        fontsize=min(6.5, 52 / len(shown)),
                        color=theme.background,
                    )
                left += width
        axes.set_yticks(range(len(shown)), [f"{record['model']}\n{record['median_s']:.3g} s" for record in shown])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_xlabel(
            "share of the time for one image, %: layers of the server in order, at the end client and transfer"
        )

    return draw


def _ends(names: Sequence[str]) -> str:
    """The first and the last of layers that are timed together."""
    return names[0] if len(names) == 1 else f"{names[0]} …\n{names[-1]}"


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
        predicted = [record.get("predicted_s", np.nan) for record in records]
        if not np.isnan(predicted).all():
            axes.plot(x, predicted, ":", color=theme.palette[2], label="cost model")
        for number, record in enumerate(sorted(networks, key=lambda record: int(record["bootstraps_per_image"]))):
            under = number % 2 == 0
            axes.plot(record["bootstraps_per_image"], record["median_s"], MARKERS[3], color=theme.palette[3])
            axes.annotate(
                record["model"],
                (record["bootstraps_per_image"], record["median_s"]),
                xytext=(6, -10) if under else (-6, 6),
                textcoords="offset points",
                horizontalalignment="left" if under else "right",
                fontsize=7.5,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
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
                    f"{r['predicted_s']:.2g} s",
                    (1e3 * r["input_noise"], 100 * r["accuracy_simulated"]),
                    xytext=(0, -13 if number else 8),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    color=color,
                    bbox={"facecolor": theme.background, "edgecolor": "none", "pad": 0.5},
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("noise of a look-up's input, thousandths of a turn; beside each: predicted seconds per image")
        axes.set_ylabel("accuracy, simulated, %")
        axes.legend(fontsize=8)

    return draw
