"""How figures look: the color-blind safe palette of Okabe and Ito, drawn once for light pages and once for dark ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
SIZE = (8.2, 4.4)  # inches
FORMATS = ("svg", "png")


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """Colors of one kind of page."""

    name: str
    background: str
    text: str
    grid: str
    palette: tuple[str, ...]


LIGHT = Theme(
    name="light",
    background="#ffffff",
    text="#1f2328",
    grid="#d8dee4",
    palette=(BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY),
)
DARK = Theme(
    name="dark",
    background="#0d1117",
    text="#e6edf3",
    grid="#30363d",
    palette=(SKY, ORANGE, "#3FCF9F", "#E59AC3", "#F0E442", "#8CB8E8"),
)
MARKERS = ("o", "s", "^", "D", "v", "P")

Draw = Callable[[Axes, Theme], None]


def save(folder: Path, name: str, draw: Draw) -> None:
    """Writes a figure in both themes and all formats: NAME-light.svg and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme in (LIGHT, DARK):
        options: dict[Any, Any] = {
            "font.size": 10,
            "svg.hashsalt": name,  # the same figure has the same bytes
            "axes.edgecolor": theme.grid,
            "axes.labelcolor": theme.text,
            "text.color": theme.text,
            "xtick.color": theme.text,
            "ytick.color": theme.text,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
        with mpl.rc_context(options):
            figure = Figure(figsize=SIZE, layout="constrained", facecolor=theme.background)
            axes = figure.add_subplot(facecolor=theme.background)
            axes.grid(color=theme.grid, linewidth=0.6)
            axes.set_axisbelow(True)
            draw(axes, theme)
            for extension in FORMATS:
                metadata = {"Date": None} if extension == "svg" else {}
                figure.savefig(folder / f"{name}-{theme.name}.{extension}", dpi=130, metadata=metadata)


def markdown(folder: str, name: str, alternative: str) -> str:
    """Returns the markup that shows the figure in the reader's theme."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{folder}/{name}-dark.svg">'
        f'<img alt="{alternative}" src="{folder}/{name}-light.svg"></picture>'
    )
