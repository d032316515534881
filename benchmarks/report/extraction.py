"""The section on stolen networks: what a thief has after so many answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.stored import Stored
from ciphershift.benchmarks.report.style import MARKERS, Draw, Theme, markdown, save

COMMAND = "ciphershift bench extraction --model NAME"
LIMIT = 0.9  # share of inputs: a copy that agrees on as many is the loss that the quotas are for
KINDS = {"logits": "all logits", "coarse": "coarse logits", "class": "class alone"}
LINES = ("-", "--", ":", "-.")


def stolen(stored: Stored, folder: Path) -> str:
    """Returns the section. Raises MissingError if nothing is stored."""
    records = stored.newest("extraction", "model", "answer", command=COMMAND)
    save(folder, "extraction", _figure(records))
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
            KINDS[record["answer"]],
            tables.percent(record["served_agreement"], 1),
            tables.percent(record["without_queries"], 1),
            *(_cell(record, count) for count in queries),
        )
        for record in records
    ]
    steps = next((record["coarse_levels"] for record in records if record["coarse_levels"]), tables.NONE)
    about = (
        "Agreement of a copy with the plaintext network on inputs that were not asked, and the relative error of the first layer's "
        "weights and biases after the best order and lengths of its units; of two attacks the better one in each figure. "
        "*distillation*: a network of the same topology, which the model profile tells, trained on the answers. *moments*, for "
        "networks of depth 2: the hidden units' directions from a tensor of moments of the answers, then the same training from "
        "there. Answers are drawn with the noise, rounding and flooding of the encrypted circuit. *served itself*: how often "
        "the encrypted answer is the plaintext network's. *without queries*: a copy trained on public labels of the same images. "
        f"Coarse logits have {steps} steps. depth-2 has 16 inputs, 8 hidden ReLUs with biases and 4 classes, depth-2-large 48, 24 "
        "and 10; their inputs are Gaussian, those of networks of the zoo are training images. The quotas are for one loss: a copy that "
        f"agrees on {LIMIT:.0%} of inputs; `queries_for` in the records has others."
    )
    figure = markdown("figures", "extraction", "Agreement of the copy over the number of answers")
    quotas = "\n".join(f"- {_quota(record)}" for record in records)
    return "\n\n".join((about, figure, tables.table(head, rows), quotas))


def _best(record: Record, count: int) -> tuple[float, float] | None:
    """Greatest agreement and least error of the weights after so many answers."""
    points = [point for point in record["points"] if point["queries"] == count]
    if not points:
        return None
    return max(point["agreement"] for point in points), min(point["weights_error"] for point in points)


def _cell(record: Record, count: int) -> str:
    best = _best(record, count)
    return tables.NONE if best is None else f"{tables.percent(best[0], 1)}, error {best[1]:.2g}"


def _quota(record: Record) -> str:
    """The greatest number of answers, of those measured, after which the copy still agrees on less than LIMIT of the inputs."""
    what = f"{record['model']}, {KINDS[record['answer']]}"
    if record["without_queries"] is not None and record["without_queries"] >= LIMIT:
        free = tables.percent(record["without_queries"], 1)
        return f"{what}: no quota helps, since public labels alone make a copy that agrees on {free}"
    counts = sorted({point["queries"] for point in record["points"]})
    below: list[int] = []
    for count in counts:
        best = _best(record, count)
        if best is None or best[0] >= LIMIT:
            break
        below.append(count)
    said = f"{below[-1]:,} answers in all".replace(",", " ") if below else f"less than {counts[0]} answers"
    return f"{what}: a quota of {said} keeps these attacks below {LIMIT:.0%} agreement"


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
                LINES[model % len(LINES)],
                color=theme.palette[kind],
                marker=MARKERS[kind],
                label=f"{record['model']}, {KINDS[record['answer']]}",
            )
        axes.set_xscale("log")
        axes.set_xlabel("answers, logarithmic")
        axes.set_ylabel("agreement of the copy, %")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)

    return draw
