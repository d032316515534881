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
        ConfigurationError: it is no such checkout, its harness has been changed, or it holds another submission that is not committed.
        subprocess.CalledProcessError: the harness or a step failed; its own message is on stderr.
    """
    missing = [name for name in ("harness", *REPLACED) if not (checkout / name).is_dir()]
    if missing or not _git(checkout, "ls-files", "harness"):
        raise ConfigurationError(
            f"{checkout} is no git checkout with the folders harness, {' and '.join(REPLACED)}; make one of "
            "github.com/fhe-benchmarking/ml-inference (in later versions steps lie elsewhere: see benchmarks/fhe_benchmarking/README.md)"
        )
    if changed := _git(checkout, "status", "--porcelain", "--untracked-files=no", "--", "harness"):
        raise ConfigurationError(
            f"the harness in {checkout} is not as it was published ({changed}); restore it: git checkout -- harness"
        )
    status = _git(checkout, "status", "--porcelain", "--", *REPLACED).splitlines()
    if not _is_ours(checkout) and (lost := [line for line in status if "D" not in line[:2]]):
        raise ConfigurationError(
            f"{checkout} holds a submission that is not committed, and would be replaced ({', '.join(lost)}); commit it, or take "
            "another checkout"
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


def _is_ours(checkout: Path) -> bool:
    """Whether our submission is what lies there, from an earlier run."""
    ours = [path.relative_to(OURS) for name in REPLACED for path in (OURS / name).glob("*.*")]
    return all(
        (checkout / path).is_file() and (checkout / path).read_bytes() == (OURS / path).read_bytes() for path in ours
    )


def _git(checkout: Path, *arguments: str) -> str:
    """What git says of the checkout itself, or nothing if it is none."""
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(checkout.parent)}
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout.strip()
