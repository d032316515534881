"""Single look-ups: ours, those of other libraries, and the number from which a bulk look-up is faster."""

from __future__ import annotations

from collections.abc import Sequence

from ciphershift.benchmarks.harness.results import Record
from ciphershift.benchmarks.report import tables

HEAD = ("system", "settings", "look-up", "ms per look-up and core (10 to 90 %)", "at once", "error", "keys")
FIRST = ("key_switch", "bootstrap")
"""What a look-up of ours consists of."""


def lookups(ours: Sequence[Record], others: Sequence[Record]) -> str:
    """Markdown, with the crossover where a bulk look-up is among the others.

    Args:
        ours: records of primitives of ours.
        others: records of other libraries' look-ups; one with `seconds_per_call` costs the same for one number as for all.
    """
    threads = max(record["threads"] for record in ours)
    used = [record for record in ours if record["threads"] == threads and record["op"] in FIRST]
    each = sum(record["median_us_per_item"] for record in used) / threads / 1e6
    alone = next(record for record in ours if record["op"] == "bootstrap" and record["threads"] == 1)
    rows = [_row(record) for record in sorted(others, key=lambda record: float(record["median_us_per_item"]))]
    text = (
        f"A look-up of ours, key switch and bootstrap, takes {1e3 * each * threads:.3g} ms of a core with {threads} threads "
        f"({alone['params']}); the bootstrap alone with one thread {alone['median_us_per_item'] / 1e3:.3g} ms "
        f"({alone['p10'] / 1e3:.3g} to {alone['p90'] / 1e3:.3g}), {alone['ratio_to_floor']:.2f} times its own transforms and products. "
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
