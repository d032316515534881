"""Boxes, arrows and words as SVG text: what the diagrams of the architecture need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
text { font: 15px system-ui, sans-serif; fill: #1b1f24; }
.small { font-size: 12px; fill: #57606a; }
.label { font-size: 12px; fill: #57606a; paint-order: stroke; stroke: #ffffff; stroke-width: 6px; }
.code { font: 13px ui-monospace, monospace; }
.title { font-weight: 600; }
.card { fill: #ffffff; }
.box { fill: #f3f5f8; stroke: #8c96a3; }
.client { fill: #e8f4ec; stroke: #3d8b57; }
.server { fill: #e8f0fb; stroke: #3b73b9; }
.secret { fill: #fdebea; stroke: #c2453c; }
.arrow { stroke: #57606a; stroke-width: 1.5; fill: none; }
.head { fill: #57606a; }
.refused { font-size: 12px; fill: #b3342b; }
.loop { stroke: #3b73b9; stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ed; }
  .small { fill: #a4adb8; }
  .label { fill: #a4adb8; stroke: #16191d; }
  .card { fill: #16191d; }
  .box { fill: #23282f; stroke: #76808c; }
  .client { fill: #18301f; stroke: #58b077; }
  .server { fill: #17263c; stroke: #6ba3ea; }
  .secret { fill: #3a1b1a; stroke: #e5746b; }
  .arrow { stroke: #a4adb8; }
  .head { fill: #a4adb8; }
  .refused { fill: #f0908a; }
  .loop { stroke: #6ba3ea; }
}
"""


def drawing(width: int, height: int, description: str, parts: Iterable[str]) -> str:
    """Returns a whole drawing; `description` is what a screen reader says of it."""
    head = (
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
        '<path class="head" d="M0 0 L10 5 L0 10 z"/></marker>'
    )
    whole = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}"'
    return "\n".join(
        [
            f"<svg {whole}>",
            f"<style>{STYLE}</style>",
            f"<defs>{head}</defs>",
            f'<rect class="card" width="{width}" height="{height}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Returns one line of words; y is its baseline."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, lines: Sequence[tuple[str, str]] = ()) -> str:
    """Returns a rectangle with lines of (class, words) in its middle."""
    top = y + height / 2 - (len(lines) - 1) * 10 + 5
    words = [text(x + width / 2, top + 20 * i, line, style) for i, (style, line) in enumerate(lines)]
    return "\n".join(
        [f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>', *words]
    )


def arrow(points: Sequence[tuple[float, float]], kind: str = "arrow") -> str:
    """Returns a line through points with a head at its end."""
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="{kind}" d="M{path}" marker-end="url(#head)"/>'
