"""What look-ups move between processes, and one job on several engines; `ciphershift bench engines` is the long version."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciphershift.benchmarks.service import engines
from ciphershift.client import Keystore
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto import ckks, params, pbs
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.program import Program

TOY = params.get("TOY_N128")


def test_bytes_are_those_that_are_handed_over(keystore: Keystore, tiny_program: Program) -> None:
    pair = keystore.open(TOY)
    keys = pair.client_keys.evaluation_keys().expand(1)
    moved = []

    def count(x: LweCiphertextList, tables: Any, index: Any, second: Any) -> LweCiphertextList:
        result = pbs.pbs(x, keys, tables, index, second=second)
        moved.append(x.data.nbytes + index.nbytes + result.data.nbytes)
        return result

    image = ckks.encrypt(pair.client_keys, pair.key_id, np.full(64, 0.01))
    list(evaluate.run(tiny_program, keys, [[image]], remote=evaluate.RemoteLookups(count, workers=1)))
    assert engines.lookup_bytes(tiny_program, TOY) == sum(moved)


@pytest.mark.slow
def test_processor_time_is_that_of_coordinator_and_workers(zoo: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    result = engines.compare_engines(zoo, "tiny", images=images, repetitions=1, workers=(1,))
    local, _, of_ray = result["engines"].values()
    assert local["coordinator_cpu_s"] == 0 < local["workers_cpu_s"]
    assert of_ray["coordinator_cpu_s"] > 0 < of_ray["workers_cpu_s"]
    assert result["lookups"] == 20 * Program.load(zoo / "tiny").lookups
