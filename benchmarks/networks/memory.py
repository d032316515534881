"""Peak memory of evaluating a large network: a process of its own, real keys, rows and linear layers; only blind rotations are left out.

A blind rotation's result has the size that it always has, but is filled with random words: a network of a hundred thousand look-ups is
then through in minutes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto import ckks
from ciphershift.he_layers.crypto.ciphertexts import ciphertext_type
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.native import _kernel
from ciphershift.he_layers.program import Program


def measure_peak(program: Program, *, threads: int) -> dict[str, Any]:
    """Returns the peak resident memory in a fresh process, before and after the evaluation, and the seconds without blind rotations."""
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder))
        command = [sys.executable, "-m", "ciphershift.benchmarks.networks.memory", folder, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    largest = max(int(np.prod(stage.output_shape)) for stage in program.stages)
    return {
        "params": served_params(program).name,
        "bootstraps": program.lookups,
        "largest_feature_map": largest,
        **found,
    }


def _evaluate(folder: Path, threads: int) -> dict[str, Any]:
    program = Program.load(folder)
    parameter_set = served_params(program)
    keys = ClientKeys.generate(parameter_set)
    server_keys = keys.evaluation_keys(threads).expand(threads)
    zeros = np.zeros(int(np.prod(program.input.shape)))
    image = ckks.encrypt(keys, "00" * 32, zeros, ciphertext_type(program.lookups))
    rng, words = np.random.default_rng(0), parameter_set.big_dimension + 1

    def blind_rotate(
        switched: NDArray[np.int32],
        tables: object,
        table_index: NDArray[np.int32],
        *_: object,
        second: object = None,
        **__: object,
    ) -> NDArray[np.uint32]:
        rows = len(table_index) * (1 if second is None else 2)
        return rng.integers(0, 2**32, (rows, words), dtype=np.uint32)

    _kernel.blind_rotate = blind_rotate
    before, started = _peak_bytes(), time.perf_counter()
    for _ in evaluate.run(program, server_keys, [[image]], threads=threads):
        pass
    return {
        "peak_memory_before_bytes": before,
        "peak_memory_bytes": _peak_bytes(),
        "seconds_without_blind_rotations": round(time.perf_counter() - started, 1),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_evaluate(Path(sys.argv[1]), int(sys.argv[2]))))
