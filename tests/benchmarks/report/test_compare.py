"""Comparing two runs: what is paired, the ratio, its spread, and when it fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ciphershift.benchmarks.cli import app
from ciphershift.benchmarks.harness import results
from ciphershift.benchmarks.report.compare import compare, table

MACHINE = {"cpu": "one", "cores": 2, "isa": "avx2", "threads": 2, "commit": "a", "date": "2026-01-01"}


def record(benchmark: str, **members: Any) -> dict[str, Any]:
    return MACHINE | {"benchmark": benchmark} | members


def timed(median: float, low: float, high: float, **members: Any) -> dict[str, Any]:
    return record("growth", maps=4, median_s=median, p10_s=low, p90_s=high, samples=5, **members)


def run(folder: Path, before: list[dict[str, Any]], after: list[dict[str, Any]], *options: str) -> Any:
    for name, records in (("before.jsonl", before), ("after.jsonl", after)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in records))
    return CliRunner().invoke(app, ["compare", str(folder / "before.jsonl"), str(folder / "after.jsonl"), *options])


def test_a_ratio_has_the_spread_of_both_runs() -> None:
    rows, remarks = compare([timed(1.0, 0.9, 1.25)], [timed(1.2, 1.0, 1.35)])
    assert [(row.figure, row.is_time) for row in rows] == [("median_s", True)]
    assert rows[0].ratio == pytest.approx(1.2)
    assert (rows[0].low, rows[0].high) == pytest.approx((0.8, 1.5))
    assert remarks == []


def test_several_records_of_one_thing_give_a_spread_and_a_median() -> None:
    before = [record("primitives", op="key_generation", seconds=seconds) for seconds in (1.0, 1.1, 1.6)]
    rows, _ = compare(before, [record("primitives", op="key_generation", seconds=2.2)])
    assert rows[0].ratio == pytest.approx(2.0)
    assert (rows[0].low, rows[0].high) == pytest.approx((1.375, 2.2))


def test_stages_layers_and_counts_are_figures_and_pair_even_if_they_differ() -> None:
    def measured(agree: int, server: float, layer: float) -> dict[str, Any]:
        layers = [{"layer": "conv relu", "measured_seconds": layer}]
        stages = {"server": server}
        return record("agreement", model="m", images=10, agree=agree, stage_median_s=stages, layers=layers)

    rows, _ = compare([measured(10, 1.0, 0.5)], [measured(9, 2.0, 1.5)])
    ratios = {row.figure: row.ratio for row in rows}
    assert ratios == {"agree": 0.9, "stage_median_s.server": 2.0, "layers.conv relu.measured_seconds": 3.0}
    assert {row.figure: row.is_time for row in rows} == {
        "agree": False,
        "stage_median_s.server": True,
        "layers.conv relu.measured_seconds": True,
    }
    assert "one sample" in table(rows)


def test_what_one_run_lacks_and_another_machine_are_said() -> None:
    after = record("growth", maps=8, median_s=1.0) | {"isa": "avx512"}
    rows, remarks = compare([timed(1.0, 1.0, 1.0)], [after])
    assert rows == []
    assert any("isa differs: avx2 before, avx512 after" in remark for remark in remarks)
    assert any(remark.startswith("only before: growth maps=4") for remark in remarks)
    assert any(remark.startswith("only after: growth maps=8") for remark in remarks)


def test_a_slowdown_beyond_its_spread_fails_and_one_within_it_does_not(tmp_path: Path) -> None:
    assert run(tmp_path, [timed(1.0, 0.95, 1.05)], [timed(1.5, 1.45, 1.55)]).exit_code == 1
    assert run(tmp_path, [timed(1.0, 0.95, 1.05)], [timed(1.5, 1.45, 1.55)], "--slower", "1.6").exit_code == 0
    assert run(tmp_path, [timed(1.0, 0.7, 1.4)], [timed(1.5, 1.1, 1.9)]).exit_code == 0


def test_a_damaged_line_is_named_and_a_missing_file_too(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"benchmark": "x"}\n{"figure": 1}\n')
    with pytest.raises(results.BadResultError, match="line 2"):
        results.read(tmp_path)
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "none.jsonl"), str(tmp_path / "bad.jsonl")])
    assert done.exit_code == 2
    assert "there is no" in done.output
