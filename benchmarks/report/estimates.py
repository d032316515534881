"""The page's section of predictions for large networks."""

from __future__ import annotations

from collections.abc import Sequence

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.points import Fit


def estimated(records: Sequence[Record], growth: Sequence[Record], stages: Sequence[Record]) -> str:
    """Predictions by the cost model and by the fit, and how the model did on a real first stage."""
    fit = Fit.of(growth) if len(growth) > 1 else None
    rows = [
        (
            record["network"],
            f"{record['lookups']:,}".replace(",", " "),
            f"{record['products']:,}".replace(",", " "),
            tables.seconds(record["predicted_s"]),
            tables.seconds(fit.seconds(record["lookups"])) if fit else tables.NONE,
            tables.size(record["upload_bytes"]),
            tables.size(record["largest_map_bytes"]),
        )
        for record in records
    ]
    head = ("network", "look-ups", "products", "cost model", "growth's fit", "upload", "widest feature map")
    text = (
        f"Predicted, not measured: images of 224 x 224 and SHE's recurrent net on this machine ({records[0]['threads']} threads, "
        f"{records[0]['params']}). None of these networks was trained here; noise may ask for a dearer set. The recurrent net is counted "
        "only, by its products of two encrypted values (two look-ups each)."
    )
    if fit:
        text += (
            f" The cost model's times are of {records[0]['date'][:10]}, the fit's of {growth[0]['date'][:10]}: the machine is shared, and "
            "not always equally fast."
        )
    text += "\n\n" + tables.table(head, rows)
    for stage in stages:
        text += (
            f"\n\nThe model against the clock at full size: {stage['network']}, {stage['lookups']} look-ups, {stage['predicted_s']} s "
            f"predicted, {stage['measured_s']} s measured (ratio {stage['ratio']}); upload {tables.size(stage['upload_bytes'])}."
        )
    return text
