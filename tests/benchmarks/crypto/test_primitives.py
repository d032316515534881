"""The timing of primitives, on the insecure small set: what a line says, not how long anything takes."""

import itertools
import time

import pytest

from ciphershift.benchmarks.crypto import primitives

FIELDS = {"op", "params_id", "isa", "threads", "batch", "median_us_per_item", "p10", "p90", "bytes_touched_per_item"}


def test_look_ups_that_share_masks_are_merged_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second with every call, six ciphertexts in each."""
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
    results = list(primitives.time_primitives(["TOY_N128_SHARED2"], threads=(1,), batch=5))
    batches = {result["op"]: result["batch"] for result in results}
    assert [batches[op] for op in ("merge", "merge_from_input", "key_switch", "bootstrap", "lookup")] == [6] * 5
    assert "key_switch_from_input" not in batches
    median = {result["op"]: result["median_us_per_item"] for result in results}
    assert (median["merge"], median["lookup"]) == (round(1e6 / 6, 1), round(3e6 / 6, 1))


def test_every_primitive_is_timed_for_each_number_of_threads() -> None:
    results = list(primitives.time_primitives(["TOY_N128"], threads=(1, 2), batch=9))
    assert all(result.keys() >= FIELDS for result in results)
    by_op = {(result["op"], result["threads"]): result for result in results}
    threaded = {
        "key_generation",
        "key_expansion",
        "shift_linear_conv_5x5_stride_2",
        "key_switch",
        "bootstrap",
        "lookup",
    }
    assert {op for op, threads in by_op if threads == 2} == threaded | {"key_switch_from_input"}
    assert {op for op, _ in by_op} - {op for op, threads in by_op if threads == 2} == {
        "sample_extract",
        "modulus_switch",
        "packing",
    }
    for threads in (1, 2):
        bootstrap = by_op["bootstrap", threads]
        assert abs(bootstrap["ratio_to_floor"] * bootstrap["floor_us"] / bootstrap["median_us_per_item"] - 1) < 0.01
    assert "speed_up" in by_op["bootstrap", 2]
    assert "speed_up" not in by_op["bootstrap", 1]


def test_sets_are_compared_with_the_first_one_round_by_round() -> None:
    results = list(primitives.time_primitives(["TOY_N128", "TOY_N128_SHARED2"], threads=(1,), batch=5))
    by_op = {(result["op"], result["params"]): result for result in results}
    assert not any("ratio" in result for result in results if result["params"] == "TOY_N128")
    for op in ("key_switch", "bootstrap", "lookup"):
        result = by_op[op, "TOY_N128_SHARED2"]
        assert result["ratio_to"] == "TOY_N128"
        assert result["ratio"] > 0
    parts = [by_op[op, "TOY_N128"]["p10"] for op in ("key_switch", "bootstrap")]
    assert by_op["lookup", "TOY_N128"]["p10"] >= max(parts)
