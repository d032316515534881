"""Agreement of networks that take other data than images."""

import numpy as np
import pytest

from ciphershift.benchmarks.networks.agreement import count_agreement, timed
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.protocol.sequences import padded


@pytest.mark.slow
def test_rows_of_a_table_are_sent_as_clients_send_them() -> None:
    found = count_agreement("german-credit", images=4, start=1, times=False)
    assert (found["images"], found["start"]) == (4, 1)
    assert found["agree"] >= 3
    assert found["layer_noise"]
    assert not {"median_s", "samples", "stage_median_s"} & found.keys()
    assert timed([found, {"median_s": 1.0}]) == [{"median_s": 1.0}]


def test_what_is_sent_stands_for_the_bytes() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    assert all(np.array_equal(a, b) for a, b in zip(Inputs().as_sent(images), images, strict=True))
    raw = rng.normal(3.0, 20.0, (40, 6))
    table = Inputs(encoding=fit_encoding(raw))
    sent = np.stack(table.as_sent(table.bytes_of(raw)))
    assert np.array_equal(table.bytes_of(sent), table.bytes_of(raw))
    series = padded([rng.normal(size=(2, length)) for length in (1, 3, 5)], 5)
    sequences = Inputs(encoding=fit_encoding(series), sequences=True)
    found = sequences.as_sent(sequences.bytes_of(series))
    assert [each.shape for each in found] == [(2, 1), (2, 3), (2, 5)]
    assert np.array_equal(sequences.bytes_of(padded(found, 5)), sequences.bytes_of(series))
