"""The memory of an evaluation without its rotations: every look-up gives a result, also where two share a mask."""

from pathlib import Path

import pytest

from ciphershift.benchmarks.networks import memory
from ciphershift.he_layers.native import _kernel
from ciphershift.he_layers.program import Program


@pytest.mark.parametrize("name", ["TOY_N128", "TOY_N128_SHARED2"])
def test_every_layer_gets_its_look_ups(
    name: str, tiny_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_program.save(tmp_path)
    monkeypatch.setenv("CIPHERSHIFT_PARAMETER_SETS", name)
    monkeypatch.setattr(_kernel, "blind_rotate", _kernel.blind_rotate)  # what _evaluate replaces comes back
    found = memory._evaluate(tmp_path, threads=1)
    assert found["peak_memory_bytes"] >= found["peak_memory_before_bytes"] > 0
