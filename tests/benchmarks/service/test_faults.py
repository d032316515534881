"""A few faults in the middle of a few jobs; `ciphershift bench faults` is the long version."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.service import faults


@pytest.mark.slow
def test_faults_at_random_moments_lose_no_job_and_spoil_none(zoo: Path, tiny_images: NDArray[np.uint8]) -> None:
    result = faults.kill_processes(zoo, "tiny", images=tiny_images, batch=16, jobs=6, kills=2, drains=3, swaps=2)
    assert sum(result["kills"].values()) == 2
    assert (result["lost"], result["wrong"]) == (0, 0)
    assert (result["drains"], result["swaps"]) == (3, 2)
    assert result["drained"] == [2, 1], "two servers, restarted in turn"
    assert 0 < result["longest_drain_s"] <= result["drain_bound_s"]
    assert sum(result["outcomes"].values()) == 6
