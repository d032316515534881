"""`ciphershift bench gpu` on the device `cpu`: it runs through, compares with the kernel, and writes down what it leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.networks import gpu
from ciphershift.he_layers.program import Program


@pytest.fixture
def models(tiny_program: Program, tmp_path: Path) -> Path:
    """A zoo whose smallest network is the tests' tiny one, under TOY parameters."""
    tiny_program.save(tmp_path / "mnist-tiny")
    return tmp_path


def test_everything_is_measured_and_right(models: Path, tiny_images: NDArray[np.uint8]) -> None:
    target = models / "gpu.json"
    result = gpu.measure(models, lambda _: tiny_images, target, device_name="cpu", seconds=600, quick=True)
    assert json.loads(target.read_text()) == result
    assert result["correctness"]["key_switch_equal"]
    assert result["correctness"]["modulus_switch_equal"]
    assert 0.4 < result["correctness"]["rotation_torch"]["ratio"] < 2  # 16 samples: 18 % is one standard error
    assert result["lookups_torch_8"]["per_second"] > 0
    assert result["mnist-tiny_torch"]["images"] == 1
    assert not [
        name for name, value in result.items() if isinstance(value, dict) and value.keys() & {"failed", "skipped"}
    ]


def test_what_there_is_no_time_for_is_written_down(models: Path, tiny_images: NDArray[np.uint8]) -> None:
    target = models / "gpu.json"
    result = gpu.measure(models, lambda _: tiny_images, target, device_name="cpu", seconds=0, quick=True)
    assert "0 s are over" in result["mnist-tiny_host"]["skipped"]


def test_what_fails_does_not_take_the_rest_with_it(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("out of luck")

    record = gpu.Record(tmp_path / "gpu.json", 60, {})
    record.add("first", fail)
    record.add("second", lambda: 2)
    assert json.loads((tmp_path / "gpu.json").read_text()) == record.values
    assert (record.values["first"], record.values["second"]) == ({"failed": "RuntimeError: out of luck"}, 2)
