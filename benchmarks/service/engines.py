"""The same job on one local worker and on several Ray workers: whether the answers agree, and how the work is divided."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.benchmarks.harness.server_process import ServerProcess, cpu_seconds, running_server, told
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import cost
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers.layer import FloatArray, flat_size
from ciphershift.he_layers.program import Program

LOCAL = ("local://?workers=1&threads=1", "local://?workers=1&threads=2")
WORKERS = (1, 2, 4)
"""Of Ray, with one thread each."""


def compare_engines(
    models: Path, model: str, *, images: NDArray[np.uint8], repetitions: int, workers: Sequence[int] = WORKERS
) -> dict[str, Any]:
    """Returns, for one job of `images` on each engine, medians of the server's seconds and of the CPU seconds of its processes.

    `differ` counts predictions other than the plaintext network's. Of Ray, `coordinator_cpu_s` is what one process does for all workers
    (linear layers, packing, sending ciphertexts), `workers_cpu_s` what is divided among them (look-ups, receiving). `bytes_per_lookup` go
    from the coordinator to a worker and back.
    """
    program = Program.load(models / model)
    served = served_params(program)
    plain = simulate.plain(program, images).argmax(axis=1)
    toy = program.params.startswith("TOY")
    results = {}
    for engine in watched((*LOCAL, *(f"ray://?workers={count}&threads=1" for count in workers)), "engines"):
        with (
            tempfile.TemporaryDirectory() as folder,
            running_server(models=models, engine=engine, allow_toy_parameters=toy) as server,
            Client(
                server.url,
                model=model,
                keystore=Keystore(Path(folder)),
                show_progress=False,
                allow_toy_parameters=toy,
            ) as client,
        ):
            client.predict(images[:1])  # keys made, uploaded and expanded
            runs: list[tuple[float, float, float]] = []
            differ = 0
            for _ in range(repetitions):
                before = _cpu(server)
                differ += int((client.predict(images).argmax(axis=1) != plain).sum())
                coordinator, workers_cpu = np.subtract(_cpu(server), before)
                runs.append((client.timings.server, coordinator, workers_cpu))
        names = ("median_s", "coordinator_cpu_s", "workers_cpu_s")
        results[engine] = {
            name: round(median(values), 3) for name, values in zip(names, zip(*runs, strict=True), strict=True)
        } | {"differ": differ}
    return envelope("engines", threads=1, params=served) | {
        "model": model,
        "images": len(images),
        "lookups": program.lookups * len(images),
        "repetitions": repetitions,
        "bytes_per_lookup": round(lookup_bytes(program, served) / program.lookups),
        "engines": results,
    }


def _cpu(server: ServerProcess) -> tuple[float, float]:
    """CPU seconds so far of a coordinator, and of all workers."""
    names = {pid: told(pid, "cmdline") for pid in server.descendants()}
    workers = server.workers() | {pid for pid, name in names.items() if name.startswith("ray::LookupWorker")}
    coordinators = [pid for pid, name in names.items() if name.startswith("ray::Coordinator")]
    return sum(map(cpu_seconds, coordinators)), sum(map(cpu_seconds, workers))


class Traffic(cost.WorkCircuit):
    """Counts the bytes of look-ups that are computed elsewhere: ciphertexts and table numbers there, ciphertexts back.

    The tables themselves go to every node once for each slice, and are left out.
    """

    def __init__(self, parameter_set: ParameterSet) -> None:
        """Nothing yet."""
        super().__init__()
        self.parameter_set = parameter_set
        self.bytes = 0

    def lookup(
        self,
        x: cost.Ciphertexts,
        tables: FloatArray,
        table_index: NDArray[np.int32],
        second: NDArray[np.int32] | None = None,
    ) -> cost.Ciphertexts:
        """Adds those of a call."""
        result = super().lookup(x, tables, table_index, second)
        for rows in (x, result):
            self.bytes += 4 * rows.count * (rows.dimension(self.parameter_set) + 1)
        self.bytes += 4 * x.count
        return result


def lookup_bytes(program: Program, parameter_set: ParameterSet) -> int:
    """Bytes that one image's look-ups send to workers and back."""
    traffic = Traffic(parameter_set)
    pixels = cost.Ciphertexts(count=flat_size(program.input.shape), under_input_key=True, under_big_key=False)
    for _ in program.walk(traffic, pixels, parameter_set.polynomial_size):
        pass
    return traffic.bytes
