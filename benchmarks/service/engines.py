"""The same job on each engine: whether the answers agree, and the speed-up of two Ray workers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program

ENGINES = ("local://?workers=1&threads=1", "ray://?workers=1&threads=1", "ray://?workers=2&threads=1")


def compare_engines(models: Path, model: str, *, images: NDArray[np.uint8], repetitions: int) -> dict[str, Any]:
    """Returns the median seconds of the server for one job of `images`, and the predictions that differ from the plaintext network's.

    `speed_up` is the time of one Ray worker over that of two; each worker has one thread, so two of them need two free cores.
    """
    plain = simulate.plain(Program.load(models / model), images).argmax(axis=1)
    results = {}
    for engine in watched(ENGINES, "engines"):
        with (
            tempfile.TemporaryDirectory() as folder,
            running_server(models=models, engine=engine) as server,
            Client(server.url, model=model, keystore=Keystore(Path(folder)), show_progress=False) as client,
        ):
            client.predict(images[:1])  # keys made, uploaded and expanded
            seconds, differ = [], 0
            for _ in range(repetitions):
                differ += int((client.predict(images).argmax(axis=1) != plain).sum())
                seconds.append(client.timings.server)
        results[engine] = {"median_s": round(median(seconds), 3), "differ": differ}
    one, two = (results[engine]["median_s"] for engine in ENGINES[1:])
    return envelope("engines", threads=1) | {
        "model": model,
        "images": len(images),
        "repetitions": repetitions,
        "engines": results,
        "speed_up": round(one / two, 3),
    }
