"""Concrete: ReLU of encrypted 4-bit and 6-bit numbers, one core. Runs in its own environment.

Each width once with the library's default error rate of a look-up, 4 bits also with the rate that is asked for.
"""

import argparse
import json
import os
import time
from importlib.metadata import version

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from concrete import fhe

BATCH = 32
ROUNDS = 7


def time_lookup(bits: int, p_error: float | None) -> dict[str, object]:
    """Times BATCH look-ups a call; compares every result."""
    half = 2 ** (bits - 1)
    table = fhe.LookupTable([max(0, value - half) for value in range(2 * half)])
    options = {} if p_error is None else {"p_error": p_error}
    compiler = fhe.Compiler(lambda x: table[x], {"x": "encrypted"})
    inputs = [np.arange(BATCH) * (number + 3) % (2 * half) for number in range(ROUNDS)]
    extremes = [np.full(BATCH, 0), np.full(BATCH, 2 * half - 1)]
    circuit = compiler.compile(inputs + extremes, fhe.Configuration(loop_parallelize=False, **options))
    started = time.perf_counter()
    circuit.keygen()
    keygen, seconds, wrong = time.perf_counter() - started, [], 0
    for values in inputs:
        encrypted = circuit.encrypt(values)
        started = time.perf_counter()
        answer = circuit.run(encrypted)
        seconds.append(time.perf_counter() - started)
        wrong += int((circuit.decrypt(answer) != np.maximum(values - half, 0)).sum())
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9]) * 1e6 / BATCH
    return {
        "op": f"lookup_{bits}bit",
        "system": "Concrete",
        "version": version("concrete-python"),
        "settings": "default error" if p_error is None else f"p_error {p_error:g}",
        "lookup_error": circuit.p_error,
        "wrong": wrong,
        "threads": 1,
        "batch": BATCH,
        "median_us_per_item": round(float(median), 1),
        "p10": round(float(low), 1),
        "p90": round(float(high), 1),
        "keygen_s": round(keygen, 3),
        "key_bytes": len(circuit.client.evaluation_keys.serialize()),
        "security_bits": 128,
    }


def main() -> None:
    """Prints one object per width and error rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--p-error", type=float, required=True, help="of 4-bit look-ups")
    given = parser.parse_args()
    for bits, p_error in ((4, None), (4, given.p_error), (6, None)):
        print(json.dumps(time_lookup(bits, p_error)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
