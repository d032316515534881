"""Run the submission by the suite's own harness, as it is in a checkout of the workload, and keep what it reports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ciphershift.benchmarks.fhe_benchmarking.driver import quality
from ciphershift.benchmarks.fhe_benchmarking.instance import MODEL, SIZES, Instance
from ciphershift.errors import ConfigurationError

OURS = Path(__file__).parent
REPLACED = ("submission", "scripts")
"""Folders of a checkout that a submission brings."""


def run(checkout: Path, size: int, *, model: str, seed: int) -> dict[str, Any]:
    """Puts our submission into a checkout, runs the harness there and returns its report.

    The harness takes ``python3`` from the path; this must have the suite's requirements and this library.

    Args:
        checkout: of the workload, with its ``harness`` as it was published.
        size: 0 to 3, as the harness numbers them; how many images each has depends on the harness.
        model: a network of the zoo for such images.
        seed: by which the harness draws images.

    Raises:
        ConfigurationError: it is no such checkout, or its harness has been changed.
        subprocess.CalledProcessError: the harness or a step failed; its own message is on stderr.
    """
    missing = [name for name in ("harness", *REPLACED) if not (checkout / name).is_dir()]
    if missing:
        raise ConfigurationError(
            f"{checkout} has no folder {missing[0]!r}; name a checkout of github.com/fhe-benchmarking/ml-inference"
        )
    if changed := _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", "harness"):
        raise ConfigurationError(
            f"the harness in {checkout} is not as it was published ({changed}); restore it: git checkout -- harness"
        )
    for name in REPLACED:
        shutil.rmtree(checkout / name)
        shutil.copytree(OURS / name, checkout / name)
    instance = Instance(checkout, size)
    command = ["python3", "harness/run_submission.py", str(size), "--seed", str(seed)]
    subprocess.run(command, cwd=checkout, env=os.environ | {MODEL: model}, stdout=sys.stderr, check=True)
    return {
        "model_name": model,
        "size": SIZES[size],
        "seed": seed,
        "harness": _git(checkout, "rev-parse", "--short=12", "HEAD"),
        "report": json.loads(instance.measurements.read_text()),
        "Quality": quality(instance),
    }


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
