"""The section on stolen networks: what a thief has after so many answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.typing import LineStyleType

from ciphershift.benchmarks.extraction import quota
from ciphershift.benchmarks.extraction.quota import LOSS
from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.stored import Stored
from ciphershift.benchmarks.report.style import MARKERS, Draw, Theme, markdown, save

COMMAND = "ciphershift bench extraction --model NAME"
KINDS = {"logits": "all logits", "coarse": "coarse logits", "class": "class alone"}
CONTROLS = {"clear": "in the clear", "real": "in the clear, not rounded"}
LINES: tuple[LineStyleType, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (1, 3)),
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (4, 3)),
    (0, (9, 2, 3, 2)),
    (0, (1, 1)),
)


def stolen(stored: Stored, folder: Path) -> str:
    """Returns the section. Raises MissingError if nothing is stored."""
    all_records = stored.newest("extraction", "model", "answer", command=COMMAND, anywhere=True)
    records = [record for record in all_records if record["answer"] in KINDS]
    save(folder, "extraction", _figure([r for r in records if len({p["queries"] for p in r["points"]}) > 1]))
    queries = sorted({point["queries"] for record in records for point in record["points"]})
    head = (
        "network",
        "answer",
        "served itself",
        "without queries",
        *(f"{count:,} answers".replace(",", " ") for count in queries),
    )
    rows = [
        (
            record["model"],
            (KINDS | CONTROLS)[record["answer"]],
            tables.percent(record["served_agreement"], 1),
            tables.percent(record["without_queries"], 1),
            *(_cell(record, count) for count in queries),
        )
        for record in all_records
    ]
    steps = next((record["coarse_levels"] for record in records if record["coarse_levels"]), tables.NONE)
    about = (
        "Agreement of a copy with the plaintext network on inputs that were not asked, and the relative error of the first layer's "
        "weights and biases after the best order and lengths of its units; of the attacks the best one in each figure, named by its "
        "first letter. *distillation*: a network of the same topology, which the model profile tells, trained on the answers; for networks "
        "whose layers are no row, a dense one of 256 units. "
        "*moments*, for networks of depth 2: the hidden units' directions from a tensor of moments of the answers, then the same "
        "training from there. *critical points*, for them, too: the directions from the kinks that answers have along lines, by inputs "
        "that the attacker chooses; the best attack on exact answers, for which the rows in the clear are its control, since nobody "
        "serves such answers. Rounding activations to 31 levels alone stops it. Answers are drawn with the noise, rounding and "
        "flooding of the encrypted circuit. *served itself*: how often the encrypted answer is the plaintext network's. *without "
        f"queries*: a copy trained on public labels of the same samples. Coarse logits have {steps} steps. depth-2 has 16 inputs, 8 "
        "hidden ReLUs with biases and 4 classes, depth-2-large 48, 24 and 10; their inputs are Gaussian, those of networks of the zoo "
        f"are training samples. The quotas are for one loss: a copy that agrees on {LOSS:.0%} of inputs; `queries_for` in the records "
        "has others. `--card` writes a model's quota into its card, and the server's profile and `ciphershift repository index` show it."
    )
    figure = markdown("figures", "extraction", "Agreement of the copy over the number of answers")
    quotas = "\n".join(f"- {_quota(record)}" for record in records)
    return "\n\n".join((about, figure, tables.table(head, rows), quotas))


def _cell(record: Record, count: int) -> str:
    """Greatest agreement and least error of the weights after so many answers, each with the attack that has it."""
    points = [point for point in record["points"] if point["queries"] == count]
    if not points:
        return tables.NONE
    copy = max(points, key=lambda point: float(point["agreement"]))
    agreement = f"{tables.percent(copy['agreement'], 1)} ({copy['attack'][0]})"
    known = [point for point in points if point["weights_error"] is not None]
    if not known:
        return agreement
    weights = min(known, key=lambda point: float(point["weights_error"]))
    return f"{agreement}, error {weights['weights_error']:.2g} ({weights['attack'][0]})"


def _quota(record: Record) -> str:
    what = f"{record['model']}, {KINDS[record['answer']]}"
    if record["without_queries"] is not None and record["without_queries"] >= LOSS:
        free = tables.percent(record["without_queries"], 1)
        return f"{what}: no quota helps, since public labels alone make a copy that agrees on {free}"
    answers = quota.within(record)
    least = min(point["queries"] for point in record["points"])
    said = f"{answers:,} answers in all".replace(",", " ") if answers else f"less than {least} answers"
    return f"{what}: a quota of {said} keeps these attacks below {LOSS:.0%} agreement"


def _figure(records: Sequence[Record]) -> Draw:
    models = list(dict.fromkeys(record["model"] for record in records))

    def draw(axes: Axes, theme: Theme) -> None:
        for record in records:
            kind, model = list(KINDS).index(record["answer"]), models.index(record["model"])
            counts = sorted({point["queries"] for point in record["points"]})
            shares = [max(p["agreement"] for p in record["points"] if p["queries"] == count) for count in counts]
            axes.plot(
                counts,
                [100 * share for share in shares],
                linestyle=LINES[model % len(LINES)],
                color=theme.palette[kind],
                marker=MARKERS[kind],
                label=f"{record['model']}, {KINDS[record['answer']]}",
            )
        axes.set_xscale("log")
        axes.set_xlabel("answers, logarithmic")
        axes.set_ylabel("agreement of the copy, %")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, handlelength=4)

    return draw
