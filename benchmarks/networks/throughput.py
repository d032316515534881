"""How many images a second, by the number of images that a client hands over at once, through a real server process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.benchmarks.harness.summary import spread
from ciphershift.client import Client, Keystore
from ciphershift.server.settings import available_cpus

BATCHES = (1, 2, 4, 8, 16, 64)


def engines() -> tuple[str, ...]:
    """Both ways to use the cores: all for one image, or one for each of several images."""
    cores = available_cpus()
    return tuple(dict.fromkeys((f"local://?workers=1&threads={cores}", f"local://?workers={cores}&threads=1")))


def time_batches(
    models: Path, model: str, images: NDArray[np.uint8], *, batches: Sequence[int] = BATCHES, repetitions: int = 1
) -> Iterator[dict[str, Any]]:
    """Yields one object per engine and batch; a batch is sent as one prediction for each worker, all at once.

    Args:
        models: folder of Programs.
        model: one of them.
        images: uint8 [count, C, H, W], at least as many as the largest batch.
        batches: numbers of images.
        repetitions: of each.
    """
    for engine in engines():
        with (
            tempfile.TemporaryDirectory() as folder,
            running_server(models=models, engine=engine, max_batch=max(batches)) as server,
            Client(server.url, model=model, keystore=Keystore(Path(folder)), show_progress=False) as client,
        ):
            params = client.profile().params
            workers = int(engine.partition("workers=")[2].partition("&")[0])
            _predict(client, images[:workers], workers)  # keys made, uploaded and expanded in every worker
            for batch in batches:
                seconds = []
                for _ in range(repetitions):
                    started = time.perf_counter()
                    _predict(client, images[:batch], workers)
                    seconds.append(time.perf_counter() - started)
                figures = spread(seconds)
                yield envelope("throughput", params=params) | {
                    "model": model,
                    "engine": engine,
                    "batch": batch,
                    "images_per_second": round(batch / figures["median_s"], 4),
                    **figures,
                }


def _predict(client: Client, images: NDArray[np.uint8], workers: int) -> None:
    jobs = [client.submit(part) for part in np.array_split(images, min(workers, len(images)))]
    for job in jobs:
        job.result()
