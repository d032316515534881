"""The section on the service under load: how long one tenant waits for another, and what faults lose."""

from __future__ import annotations

from pathlib import Path

from ciphershift.benchmarks.report import tables
from ciphershift.benchmarks.report.stored import MissingError, Stored

FAIRNESS, FAULTS = "ciphershift bench service --waiting 500", "ciphershift bench faults"

WAITS = (
    "One tenant's jobs fill the queue, then another sends single jobs, one after the other: how long each waits until it starts, "
    f"in times of one job (`{FAIRNESS}`, one worker)."
)
CHAOS = (
    "Four clients send jobs to servers that share a store while, at random moments, one of them or a worker is killed (SIGKILL), one after "
    "the other is restarted (SIGTERM, a drain under load) and the model is replaced by a version with other logits, which stops no server "
    f"(`{FAULTS}`). *failed*: a job that ended with a reason, as one whose workers were killed again and again; *lost*: a job that was "
    "refused or did not end; *wrong*: an answer that is not that of one version of the model for the job's own images. *sent again*: jobs "
    "that were accepted for a version that was gone when a worker took them, which are told so and sent once more, as a client does by "
    "itself."
)


def service(stored: Stored, folder: Path) -> str:
    """Returns the section; draws nothing into ``folder``. Raises MissingError if nothing is stored."""
    fairness, faults = stored.any("fairness", "model", "engine"), stored.any("faults", "model")
    if not fairness and not faults:
        raise MissingError(f"{FAIRNESS}`, `{FAULTS}")
    waits = [
        (
            record["model"],
            record["waiting"],
            record["left"],
            record["singles"],
            tables.seconds(record["job_seconds"]),
            f"{record['median_wait_jobs']:.2f}",
            f"{record['longest_wait_jobs']:.2f}",
        )
        for record in fairness
    ]
    chaos = [
        (
            record["model"],
            record["jobs"],
            f"{record['kills'].get('server', 0)} + {record['kills'].get('worker', 0)}",
            " + ".join(map(str, record.get("drained", [record["drains"]]))),
            record.get("swaps", 0),
            record.get("sent_again", 0),
            sum(count for outcome, count in record["outcomes"].items() if outcome.startswith("failed")),
            record["lost"],
            record["wrong"],
            f"{record['longest_drain_s']:.2f} s of {record['drain_bound_s']:g} s",
        )
        for record in faults
    ]
    head = (
        (
            "network",
            "jobs in the queue",
            "still there at the end",
            "single jobs",
            "one job",
            "median wait",
            "longest wait",
        ),
        (
            "network",
            "jobs",
            "killed, server + worker",
            "drains of each server",
            "replaced models",
            "sent again",
            "failed",
            "lost",
            "wrong",
            "longest drain",
        ),
    )
    parts = []
    for about, command, columns, rows in ((WAITS, FAIRNESS, head[0], waits), (CHAOS, FAULTS, head[1], chaos)):
        parts += [about, tables.table(columns, rows) if rows else f"**Not measured yet.** `{command}` measures it."]
    return "\n\n".join(parts)
