"""Run the submission as the harness does: real MNIST files, each step its own process, times and sizes in the harness's fields."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ciphershift.benchmarks.fhe_benchmarking.instance import MODEL, SIZES, Instance, write
from ciphershift.models.training.data import Split

STEPS = Path(__file__).parent / "submission"
IMAGES = (1, 100, 1000, 10000)
"""Of each size."""


@dataclass(slots=True)
class Measurements:
    """Seconds by step, bytes by what is sent."""

    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times the block inside."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def run(root: Path, size: int, split: Split, *, model: str, count: int | None = None) -> dict[str, Any]:
    """Runs all steps over the first images of a data set and returns what the harness would write.

    Args:
        root: folder that stands for the harness's checkout; must hold no run of this size yet.
        size: 0 to 3, as the harness numbers them.
        split: images and labels.
        model: a network of the zoo for such images.
        count: of images; by default as many as the size has.

    Raises:
        subprocess.CalledProcessError: a step failed; its own message is on stderr.
    """
    instance, found = Instance(root, size), Measurements()
    chosen = split.part(0, count or IMAGES[size])

    def step(name: str, script: str, *arguments: str) -> None:
        with found.step(name):
            command = [sys.executable, str(STEPS / f"{script}.py"), *arguments]
            subprocess.run(command, cwd=root, env=os.environ | {MODEL: model}, stdout=sys.stderr, check=True)

    number = str(size)
    step("Key Generation", "client_key_generation", number)
    found.sizes["Public and evaluation keys"] = _bytes(instance.evaluation_keys.parent)
    step("Encrypted model preprocessing", "server_preprocess_model")
    with found.step("Input generation"):
        _write_input(instance, chosen)
    step("Input preprocessing", "client_preprocess_input", number)
    step("Input encryption", "client_encode_encrypt_input", number)
    found.sizes["Encrypted input"] = _bytes(instance.uploads)
    step("Encrypted computation", "server_encrypted_compute", number)
    found.sizes["Encrypted results"] = _bytes(instance.downloads)
    step("Result decryption", "client_decrypt_decode", number)
    step("Result postprocessing", "client_postprocess", number)
    result = _report(instance, model, found)
    write(instance.measurements, json.dumps(result, indent=2).encode())
    return result


def _write_input(instance: Instance, split: Split) -> None:
    instance.pixels.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(instance.pixels, split.images.reshape(len(split.images), -1) / 255, fmt="%.6f")
    np.savetxt(instance.labels, split.labels, fmt="%d")


def _report(instance: Instance, model: str, found: Measurements) -> dict[str, Any]:
    reported = json.loads(instance.server_report.read_text())
    return {
        "model_name": model,
        "dataset_name": "mnist",
        "size": SIZES[instance.size],
        "Timing": {name: f"{seconds:.4f}s" for name, seconds in found.seconds.items()}
        | {"Total": f"{sum(found.seconds.values()):.4f}s"},
        "Bandwidth": {name: _readable(count) for name, count in found.sizes.items()},
        "Quality": quality(instance),
        "Server Reported": {name: f"{seconds}s" for name, seconds in reported.items()},
    }


def quality(instance: Instance) -> dict[str, Any]:
    """How many predictions are the labels, in the harness's words."""
    labels, predictions = (path.read_text().split() for path in (instance.labels, instance.predictions))
    correct = sum(label == prediction for label, prediction in zip(labels, predictions, strict=True))
    found = {"correct_predictions": correct, "total_samples": len(labels), "accuracy": correct / len(labels)}
    return {"Encrypted model quality": found}


def _bytes(folder: Path) -> int:
    """Of a folder and all in it, as `du -sb` counts them."""
    return sum(path.stat().st_size for path in (folder, *folder.rglob("*")))


def _readable(count: float) -> str:
    for unit in "BKMGT":
        if count < 1024:
            return f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}P"
