"""The shipped networks under their real parameters: keys, server, images, commands."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ciphershift.benchmarks import demo
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import ZOO

ROOT = Path(__file__).resolve().parents[2]
SEVEN = ROOT / "client" / "samples" / "mnist-0-is-7.png"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server of the shipped networks."""
    with running_server() as process:
        yield process


def test_encrypted_predictions_are_those_of_the_plaintext_network(server: ServerProcess, home: Path) -> None:
    images, _ = demo.samples()
    program = Program.load(ZOO / "mnist-tiny")
    with Client(server.url, model="mnist-tiny", keystore=home / "client") as client:
        logits = client.predict(images[:5])
        profile = client.profile()
    assert profile.security_bits >= 128
    assert (logits.argmax(axis=1) == simulate.plain(program, images[:5]).argmax(axis=1)).sum() >= 4


@pytest.mark.slow  # its look-ups take seven times as long
def test_every_encrypted_logit_of_the_exact_network_is_the_integer_networks(server: ServerProcess, home: Path) -> None:
    """2^-34 is how often this may fail in an image (its card)."""
    images, _ = demo.samples()
    program = Program.load(ZOO / "mnist-exact")
    with Client(server.url, model="mnist-exact", keystore=home / "client") as client:
        logits = client.predict(images[:1])
        profile = client.profile()
    assert profile.profile == "exact"
    assert np.allclose(logits, simulate.plain(program, images[:1]) * program.output.scale, rtol=0, atol=1e-9)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ciphershift", *arguments]


def test_the_shell_command_names_the_digit(server: ServerProcess, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSHIFT_HOME", str(home))
    asked = command("predict", str(SEVEN), "--url", server.url, "--model", "mnist-fast")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"is-7\.png: 7 ", done.stdout)
    assert re.search(r"encrypt \d+\.\d\d s", done.stdout)


TYPIST = """
import os, pty, sys
shown = b""
def read(terminal):
    global shown
    data = os.read(terminal, 1024)
    shown += data
    if shown.endswith(b"Passphrase: "):
        os.write(terminal, sys.argv[1].encode() + b"\\n")
    return data
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[2:], read)))
"""


def in_terminal(passphrase: str, asked: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in a terminal of its own, where somebody types a passphrase when asked for it."""
    typist = [sys.executable, "-c", TYPIST, passphrase, *asked]
    return subprocess.run(typist, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_jobs_ask_for_the_passphrase_of_the_keys(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIPHERSHIFT_HOME", str(tmp_path))
    with Client(server.url, model="mnist-tiny") as client:
        Keystore(passphrase="correct horse").open(client.profile().params)
    submit = command("jobs", "submit", str(SEVEN), "--url", server.url, "--model", "mnist-tiny")
    unasked = subprocess.run(submit, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert unasked.stderr.startswith("locked_key: ")
    submitted = in_terminal("correct horse", submit)
    assert "Passphrase" in submitted.stdout
    assert submitted.returncode == 0, submitted.stdout
    (job,) = set(re.findall("[0-9a-f]{32}", submitted.stdout))
    read = in_terminal("correct horse", command("jobs", "result", job, "--url", server.url))
    assert read.returncode == 0, read.stdout
    assert "image 1: 7 " in read.stdout


@pytest.mark.slow
def test_the_demonstration_prints_a_summary_for_each_model() -> None:
    command = [sys.executable, "-m", "ciphershift", "bench", "demo", "--larger", "mnist-fast"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = [line for line in done.stdout.splitlines() if line.startswith("demo: ")]
    for line, model, images, agree in zip(
        summaries, ("mnist-tiny", "mnist-fast"), (10, 1), ("9|10", "0|1"), strict=True
    ):
        assert re.fullmatch(
            rf"demo: model={model} images={images} agree=({agree}) correct=\d+ median_s=\d+\.\d+ "
            r"upload_bytes=\d+ download_bytes=\d+ key_bytes=\d+",
            line,
        )


def test_samples_are_the_first_test_images() -> None:
    images, labels = demo.samples()
    assert images.shape == (10, 1, 28, 28)
    assert labels.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.all(images.max(axis=(1, 2, 3)) > 250)
