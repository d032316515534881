"""Time of each primitive, per ciphertext and core, as median with 10th and 90th percentile over repetitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.envelope import envelope
from benchmarks.watched import watched
from he_layers.crypto import lwe, params
from he_layers.crypto.ciphertexts import LweCiphertextList
from he_layers.crypto.secret_keys import ClientKeys
from he_layers.native import _kernel

REPETITIONS = 9


def measure(name: str, *, threads: int, batch: int) -> Iterator[dict[str, Any]]:
    """Yields one object per primitive; the bootstrap's also has `floor_us`, the same transforms and products alone, timed in turn with it.

    Args:
        name: of the parameter set.
        threads: of the kernel; figures are wall-clock time per ciphertext times threads, that is per core.
        batch: ciphertexts in one call.
    """
    parameter_set = params.get(name)
    common = envelope("primitives", threads=threads) | {"params": name, "params_id": parameter_set.id, "batch": batch}
    started = time.perf_counter()
    keys = ClientKeys.generate(parameter_set)
    sent = keys.evaluation_keys(threads)
    generated = time.perf_counter()
    server = sent.expand(threads)
    expanded = time.perf_counter()
    yield common | {"op": "key_generation", "seconds": round(generated - started, 4)}
    yield common | {"op": "key_expansion", "seconds": round(expanded - generated, 4), "bytes": server.nbytes}
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**32, (batch, parameter_set.big_dimension + 1), dtype=np.uint32)
    big = LweCiphertextList(rows)
    switched = _kernel.modulus_switch(
        lwe.key_switch(big, server, threads=threads).data, polynomial_size=parameter_set.polynomial_size
    )
    table = rng.uniform(-0.25, 0.25, (1, parameter_set.polynomial_size))
    index, gadget = np.zeros(batch, np.int32), parameter_set.pbs

    def timed(kernel: Callable[..., object]) -> Callable[[], object]:
        return lambda: kernel(
            switched, table, index, server.fourier_bsk, base_log=gadget.base_log, levels=gadget.levels, threads=threads
        )

    calls: dict[str, Callable[[], object]] = {
        "key_switch": lambda: lwe.key_switch(big, server, threads=threads),
        "bootstrap": timed(_kernel.blind_rotate),
        "floor": timed(_kernel.bootstrap_floor),
    }
    touched = {
        "key_switch": server.ksk.nbytes / batch + rows.nbytes / batch,
        "bootstrap": server.fourier_bsk.nbytes / batch + rows.nbytes / batch,
    }
    times = _in_turns(calls, scale=1e6 * threads / batch)
    floor = float(np.median(times.pop("floor")))
    for op, microseconds in times.items():
        low, median, high = np.quantile(microseconds, [0.1, 0.5, 0.9])
        result = {"op": op, "median_us_per_item": round(median, 1), "p10": round(low, 1), "p90": round(high, 1)}
        result |= {"bytes_touched_per_item": round(touched[op])}
        if op == "bootstrap":
            result |= {"floor_us": round(floor, 1), "ratio_to_floor": round(float(median) / floor, 3)}
        yield common | result


def _in_turns(calls: dict[str, Callable[[], object]], *, scale: float) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in watched(range(REPETITIONS + 1), "rounds"):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if repetition:  # the first round warms the caches
                times[name].append((time.perf_counter() - started) * scale)
    return times
