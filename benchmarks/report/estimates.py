"""The page's sections of predictions: large networks, and many workers."""

from __future__ import annotations

from collections.abc import Sequence

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.points import Fit

WORKERS = (1, 2, 8, 32, 128)


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
        "only, by its products of two encrypted values (two look-ups each).\n\n" + tables.table(head, rows)
    )
    for stage in stages:
        text += (
            f"\n\nThe model against the clock at full size: {stage['network']}, {stage['lookups']} look-ups, {stage['predicted_s']} s "
            f"predicted, {stage['measured_s']} s measured (ratio {stage['ratio']}); upload {tables.size(stage['upload_bytes'])}."
        )
    return text


def workers(scaling: Record, records: Sequence[Record]) -> str:
    """Seconds on several Ray workers of one thread each, by the speed-up that was measured for two."""
    parallel = 2 - 2 / scaling["speed_up"]  # Amdahl: the share of the work that is divided
    head = ("network", *(tables.several(count, "worker") for count in WORKERS))
    rows = [
        (
            record["network"],
            *(
                tables.seconds(record["predicted_s"] * record["threads"] * (1 - parallel + parallel / count))
                for count in WORKERS
            ),
        )
        for record in records
    ]
    return (
        f"Two Ray workers of one thread answered {scaling['speed_up']} times as fast as one ({scaling['model']}, {scaling['images']} "
        f"images, {scaling['repetitions']} repetitions, both on this machine), so {tables.percent(parallel, 0)} of the time is "
        "divided among workers (Amdahl). Predicted from there, with one core for each worker and no account of the network between "
        "machines:\n\n" + tables.table(head, rows)
    )
