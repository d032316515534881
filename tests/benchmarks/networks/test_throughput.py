"""Throughput is measured for every batch, larger ones than a server takes by default, too."""

import numpy as np
import pytest

from ciphershift.benchmarks.networks import throughput
from ciphershift.server.settings import Settings


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_batch_above_the_servers_usual_limit_is_measured() -> None:
    settings = Settings()
    many = settings.max_batch + 1
    images = np.random.default_rng(3).integers(0, 256, (many, 1, 28, 28), dtype=np.uint8)
    records = list(throughput.time_batches(settings.models, "mnist-tiny", images, batches=(many,)))
    assert [(record["engine"], record["batch"]) for record in records] == [
        (engine, many) for engine in throughput.engines()
    ]
    assert all(record["images_per_second"] > 0 for record in records)
