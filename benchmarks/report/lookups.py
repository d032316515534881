"""Single look-ups: ours by parameter set, those of other libraries, and the number from which a bulk look-up is faster."""

from __future__ import annotations

from collections.abc import Sequence

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.params import DEFAULT, FAST_N512_BLOCK3, FAST_N512_BLOCK3_SHARED2

HEAD = ("system", "settings", "look-up", "ms per look-up and core (10 to 90 %)", "at once", "error", "keys")
SETS = (DEFAULT, FAST_N512_BLOCK3.name, FAST_N512_BLOCK3_SHARED2.name)
"""Of ours, in turns: the first is what the others are compared with, the last is that of large layers."""


def lookups(ours: Sequence[Record], others: Sequence[Record]) -> str:
    """Markdown, with the crossover where a bulk look-up is among the others.

    Args:
        ours: records of primitives of ours under SETS as they are now.
        others: records of other libraries' look-ups; one with `seconds_per_call` costs the same for one number as for all.
    """
    threads = max(record["threads"] for record in ours)
    each = _of(ours, "lookup", SETS[-1], threads)["median_us_per_item"] / threads / 1e6
    alone = _of(ours, "bootstrap", SETS[-1], 1)
    rows = [_row(record) for record in sorted(others, key=lambda record: float(record["median_us_per_item"]))]
    text = (
        f"{_sets(ours)}\n\nA look-up is a key switch and a bootstrap, and a merge where masks are shared; {alone['batch']} in a call. "
        f"In a large network ({alone['params']}) it takes {1e3 * each * threads:.3g} ms of a core with {threads} threads; the bootstrap "
        f"alone with one thread {alone['median_us_per_item'] / 1e3:.3g} ms ({alone['p10'] / 1e3:.3g} to {alone['p90'] / 1e3:.3g}), "
        f"{alone['ratio_to_floor']:.2f} times its own transforms and products. "
        "Other libraries' ReLU of encrypted numbers on the same machine, every result compared:"
    )
    if not rows:
        return text + "\n\nNone was measured here: `benchmarks/peers/install.sh`, then `ciphershift bench report`."
    crossings = [
        f"{bulk['system']} takes {bulk['seconds_per_call']:.3g} s on {bulk['threads']} cores whether one or all of its "
        f"{bulk['batch']} numbers are needed, {1e3 * bulk['seconds_per_call'] / bulk['batch']:.3g} ms each if all are. Up to "
        f"**{bulk['seconds_per_call'] / each:.0f} look-ups in a layer** ours are faster; a layer of {bulk['batch']} takes "
        f"{tables.seconds(each * bulk['batch'])} with ours."
        for bulk in others
        if "seconds_per_call" in bulk
    ]
    return "\n\n".join((text, tables.table(HEAD, rows), *crossings))


def by_network(records: Sequence[Record]) -> str:
    """A table of whole images, with a row for each network and set, or nothing."""
    rows = [
        (
            record["model"],
            record["params"],
            tables.seconds(record["measured_seconds"]),
            f"{record['ratio']:.2f} ({record['least_ratio']:.2f} to {record['greatest_ratio']:.2f})",
            record["repetitions"],
        )
        for record in records
    ]
    if not rows:
        return ""
    head = ("network", "set", "evaluation of one image", f"over {records[0]['ratio_to']} (least, greatest)", "rounds")
    return f"\n\nWhole images, sets in turns (`ciphershift bench cost --params`):\n\n{tables.table(head, rows)}"


def current(records: Sequence[Record]) -> list[Record]:
    """Those of SETS as they are now."""
    ids = {params.get(name).id for name in SETS}
    return [record for record in records if record.get("params_id") in ids]


def _of(ours: Sequence[Record], op: str, name: str, threads: int) -> Record:
    return next(r for r in ours if r["op"] == op and r["params"] == name and r["threads"] == threads)


def _sets(ours: Sequence[Record]) -> str:
    counts = sorted({record["threads"] for record in ours})
    rows = [
        (
            name,
            *(_time(_of(ours, "lookup", name, threads)) for threads in counts),
        )
        for name in SETS
    ]
    return tables.table(
        ("look-up, ms of a core (10 to 90 %), ratio", *(tables.several(n, "thread") for n in counts)), rows
    )


def _time(record: Record) -> str:
    low, median, high = (f"{record[member] / 1e3:.3g}" for member in ("p10", "median_us_per_item", "p90"))
    return f"{median} ({low} to {high}), {record.get('ratio', 1):.2f}"


def _row(record: Record) -> tuple[str, ...]:
    spread = f" ({record['p10'] / 1e3:.3g} to {record['p90'] / 1e3:.3g})" if "p10" in record else ""
    return (
        f"{record['system']} {record['version']}",
        record["settings"],
        record["op"].removeprefix("lookup_"),
        f"{record['median_us_per_item'] / 1e3:.3g}{spread}",
        str(record["batch"]),
        tables.error(record.get("lookup_error")),
        tables.size(record.get("key_bytes")),
    )
