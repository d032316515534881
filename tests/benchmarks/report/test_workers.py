"""What several workers gain, by what one process does for all of them."""

from pathlib import Path

import pytest

from ciphershift.benchmarks.report.stored import Stored
from ciphershift.benchmarks.report.workers import Division, workers
from tests.benchmarks.report.test_report import records


def test_the_slowest_of_three_decides() -> None:
    division = Division(coordinator=2.0, workers=100.0, network=4.0)
    assert [division.seconds(count) for count in (1, 10, 25, 1000)] == [100.0, 10.0, 4.0, 4.0]
    assert division.limit == 25
    assert Division(coordinator=5.0, workers=100.0, network=4.0).limit == 20


def test_workers_of_one_machine_share_its_cores_with_the_coordinator() -> None:
    division = Division(coordinator=1.0, workers=10.0)
    assert division.seconds_here(1, cores=2, contention=1.2) == 10.0
    assert division.seconds_here(2, cores=2, contention=1.2) == pytest.approx(1.2 * 5.5)
    assert division.seconds_here(4, cores=2, contention=1.2) == pytest.approx(1.2 * 5.5)
    assert division.seconds_here(4, cores=8, contention=1.2) == 2.5, "cores are free"


def test_the_section_has_a_row_for_each_number_of_workers_and_each_network(tmp_path: Path) -> None:
    text = workers(Stored(records()), tmp_path)
    assert "| 1 | 2.1 s | 2 s | 0.1 s | 2 s | 95.2 % | 0 |" in text
    assert "| 2 | 1.4 s | 1.31 s | 0.15 s | 2.5 s | 94.3 % | 0 |" in text
    # Linear layers 4000 - 1e6 * 0.0038 = 200 s, 0.1 ms a look-up for the coordinator and 2 ms for the workers, 16 GB at 1.25 GB a second.
    assert "| alexnet | 5 min | 5 min | 5 min | 5 min | 12.8 s | 7 cores |" in text
    assert "by the network alone it would be 156" in text
    assert "| 4 | 1.5 s | 1.31 s | 0.2 s | 2.5 s | 92.6 % | 0 |" in text  # 1.25 * (0.1 + 2) / 2
