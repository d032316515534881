"""How long one tenant's single job waits while hundreds of another tenant's jobs are in the queue."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.benchmarks.service.load import make_tenants
from ciphershift.client import Client, Keystore
from ciphershift.he_layers.program import Program

BOUND = 2.0  # jobs' times that a single job may wait
SINGLE = 10  # jobs of the tenant that sends one at a time


def delay_single_jobs(
    models: Path, model: str, *, image: NDArray[np.uint8], waiting: int, engine: str = ""
) -> dict[str, Any]:
    """Returns how long single jobs waited, in units of the time of one job, while a crowd's queue was full.

    Args:
        models: folder of Programs.
        model: one of them.
        image: uint8 [C, H, W], of every job.
        waiting: jobs of the crowd, all submitted before the first single job.
        engine: the server's setting, if not its default.
    """
    program = Program.load(models / model)
    with tempfile.TemporaryDirectory(prefix="ciphershift-fairness-") as folder:
        settings: dict[str, Any] = {
            "models": models,
            "storage": Path(folder, "server"),
            "open": False,
            "queue_depth": waiting,
            "queue_depth_total": waiting + SINGLE,
            "deadline_seconds": 86400,
            "requests_per_second": 10_000,
            "allow_toy_parameters": program.params.startswith("TOY"),
        } | ({"engine": engine} if engine else {})
        with running_server(**settings) as server:
            crowd_key, single_key = make_tenants(Path(folder, "server"), 2)
            clients = [
                Client(
                    server.url,
                    model=model,
                    api_key=key,
                    keystore=Keystore(Path(folder, f"tenant-{number}")),
                    show_progress=False,
                    allow_toy_parameters=program.params.startswith("TOY"),
                )
                for number, key in enumerate((crowd_key, single_key))
            ]
            crowd, single = clients
            for client in clients:
                client.predict(image[None])  # keys made, uploaded and expanded
            for _ in watched(range(waiting), f"{model}: jobs of the crowd", waiting):
                crowd.submit(image[None])
            for _ in range(SINGLE):
                single.predict(image[None])
            left = sum(job["state"] == "pending" for job in _jobs(server.url, crowd_key, waiting))
            begun = [job for job in _jobs(server.url, crowd_key, 1000) if job["started"]]
            singles = _jobs(server.url, single_key, SINGLE)
            for client in clients:
                client.close()
    job_seconds = median(_seconds(job, "started", "finished") for job in begun if job["state"] == "completed")
    waits = [_seconds(job, "created", "started") / job_seconds for job in singles]
    before = [
        sum(_time(job, "created") < _time(each, "started") < _time(job, "started") for each in begun) for job in singles
    ]
    return envelope("fairness") | {
        "engine": engine or "local://",
        "model": model,
        "params": served_params(program).name,
        "waiting": waiting,
        "left": left,
        "job_seconds": round(job_seconds, 4),
        "singles": len(waits),
        "median_wait_jobs": round(median(waits), 3),
        "longest_wait_jobs": round(max(waits), 3),
        "most_before": max(before),  # jobs of the crowd that began while a single one waited
        "bound_jobs": BOUND,
    }


def _seconds(job: dict[str, Any], first: str, last: str) -> float:
    return (_time(job, last) - _time(job, first)).total_seconds()


def _time(job: dict[str, Any], event: str) -> datetime:
    return datetime.fromisoformat(job[event])


def _jobs(url: str, api_key: str, limit: int) -> list[dict[str, Any]]:
    """The tenant's newest jobs."""
    answer = httpx.get(f"{url}/v2/jobs", params={"limit": limit}, headers={"Authorization": f"Bearer {api_key}"})
    found: list[dict[str, Any]] = answer.raise_for_status().json()["jobs"]
    return found
