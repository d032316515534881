"""The submission's steps, each in a process of its own, over files alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.fhe_benchmarking import driver, harness
from ciphershift.benchmarks.fhe_benchmarking.instance import Instance
from ciphershift.benchmarks.harness.expected import ExpectedLogits
from ciphershift.errors import ConfigurationError, InsecureParamsError
from ciphershift.he_layers.program import Program
from ciphershift.models.training.data import Split


@pytest.fixture(scope="module")
def environment(zoo: Path) -> dict[str, str]:
    return {"CIPHERSHIFT_MODELS": str(zoo), "CIPHERSHIFT_ALLOW_TOY_PARAMETERS": "true"}


@pytest.fixture(scope="module")
def run(
    environment: dict[str, str], tiny_images: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Instance, dict[str, Any]]:
    root = tmp_path_factory.mktemp("harness")
    split = Split(images=tiny_images[:2], labels=np.array([0, 1]))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Instance(root, 1), driver.run(root, 1, split, model="tiny", count=2)


def step(instance: Instance, script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(driver.STEPS / f"{script}.py"), str(instance.size)]
    variables = os.environ | environment | {"CIPHERSHIFT_MODEL": "tiny"}
    return subprocess.run(command, cwd=instance.root, env=variables, capture_output=True, text=True, check=False)


def test_two_images_go_through_all_steps(
    run: tuple[Instance, dict[str, Any]], tiny_program: Program, tiny_images: NDArray[np.uint8]
) -> None:
    instance, _ = run
    logits = np.load(instance.logits)
    assert ExpectedLogits.of(tiny_program, tiny_images[:2]).fit(logits, slice(None))
    assert instance.predictions.read_text().split() == [
        tiny_program.output.classes[number] for number in logits.argmax(axis=1)
    ]


def test_the_report_has_the_fields_of_the_harness(run: tuple[Instance, dict[str, Any]]) -> None:
    instance, result = run
    assert json.loads(instance.measurements.read_text()) == result
    assert list(result["Timing"]) == [
        "Key Generation",
        "Encrypted model preprocessing",
        "Input generation",
        "Input preprocessing",
        "Input encryption",
        "Encrypted computation",
        "Result decryption",
        "Result postprocessing",
        "Total",
    ]
    assert list(result["Bandwidth"]) == ["Public and evaluation keys", "Encrypted input", "Encrypted results"]
    assert result["Quality"]["Encrypted model quality"]["total_samples"] == 2
    assert set(result["Server Reported"]) == {"Key expansion", "Encrypted computation", "Total"}


def test_the_server_computes_without_the_secret_key_and_answers_cannot_be_swapped(
    run: tuple[Instance, dict[str, Any]], environment: dict[str, str], tmp_path: Path
) -> None:
    instance = Instance(tmp_path / "copy", 1)
    shutil.copytree(run[0].root, instance.root)
    secret = instance.secret_key.rename(tmp_path / "elsewhere")
    shutil.rmtree(instance.downloads)
    assert step(instance, "server_encrypted_compute", environment).returncode == 0
    secret.rename(instance.secret_key)
    first, second = sorted(instance.downloads.iterdir())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    refused = step(instance, "client_decrypt_decode", environment)
    assert refused.returncode != 0
    assert "WrongAnswerError" in refused.stderr


def test_toy_parameters_and_unknown_sizes_are_refused(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance(tmp_path, 0)
    monkeypatch.delenv("CIPHERSHIFT_ALLOW_TOY_PARAMETERS", raising=False)
    refused = step(instance, "client_key_generation", {"CIPHERSHIFT_MODELS": str(zoo)})
    assert InsecureParamsError.__name__ in refused.stderr
    assert not instance.io.exists()
    assert "usage" in step(Instance(tmp_path, 7), "client_key_generation", {}).stderr


HARNESS = """
import json, pathlib, subprocess, sys
size, name = sys.argv[1], ("single", "small", "medium", "large")[int(sys.argv[1])]
subprocess.run(["scripts/get_openfhe.sh"], check=True)
subprocess.run(["scripts/build_task.sh", "./submission"], check=True)
steps = [["client_key_generation", size], ["server_preprocess_model"], ["client_preprocess_input", size]]
steps += [["client_encode_encrypt_input", size], ["server_encrypted_compute", size]]
for step, *arguments in [*steps, ["client_decrypt_decode", size], ["client_postprocess", size]]:
    subprocess.run([pathlib.Path("submission/build") / step, *arguments], check=True)
report = pathlib.Path("measurements") / name / "results-1.json"
report.parent.mkdir(parents=True)
report.write_text(json.dumps({"per_stage": {}, "seed": sys.argv[3]}))
"""


@pytest.fixture
def checkout(tmp_path: Path, tiny_images: NDArray[np.uint8]) -> Path:
    """What the harness of the suite does, in short: it calls the scripts, then each step as an executable."""
    for name in ("harness", "scripts", "submission"):
        (tmp_path / name).mkdir()
    (tmp_path / "harness/run_submission.py").write_text(HARNESS)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    instance = Instance(tmp_path, 1)
    instance.pixels.parent.mkdir(parents=True)
    np.savetxt(instance.pixels, tiny_images[:2].reshape(2, -1) / 255, fmt="%.6f")
    np.savetxt(instance.labels, np.array([0, 0]), fmt="%d")
    return tmp_path


def test_a_harness_runs_the_steps_as_executables(
    checkout: Path, environment: dict[str, str], tiny_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    harness.run(checkout, 1, model="tiny", seed=4)
    (checkout / "measurements/small/results-1.json").unlink()
    (checkout / "measurements/small").rmdir()
    result = harness.run(checkout, 1, model="tiny", seed=5)  # our own submission may be replaced
    assert result["report"] == {"per_stage": {}, "seed": "5"}
    predictions = np.load(Instance(checkout, 1).logits).argmax(axis=1)
    right = sum(tiny_program.output.classes[number] == "0" for number in predictions)
    assert result["Quality"]["Encrypted model quality"]["correct_predictions"] == right
    assert len(result["harness"]) == 12


def test_a_changed_harness_is_refused_before_anything_is_replaced(checkout: Path) -> None:
    (checkout / "harness/run_submission.py").write_text("print('all right')")
    with pytest.raises(ConfigurationError, match="not as it was published"):
        harness.run(checkout, 1, model="tiny", seed=0)
    assert not list((checkout / "submission").iterdir())


def test_what_would_be_lost_is_refused(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (checkout / "submission/mine.cpp").write_text("int main() {}")
    with pytest.raises(ConfigurationError, match="not committed"):
        harness.run(checkout, 1, model="tiny", seed=0)
    assert (checkout / "submission/mine.cpp").exists()
    unpacked = tmp_path_factory.mktemp("unpacked")
    for name in ("harness", "scripts", "submission"):
        (unpacked / name).mkdir()
    with pytest.raises(ConfigurationError, match="no git checkout"):
        harness.run(unpacked, 1, model="tiny", seed=0)
