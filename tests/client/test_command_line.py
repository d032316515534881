"""The client's commands: what they print, and how they fail."""

import subprocess
import sys
from pathlib import Path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "client", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_keygen_says_where_the_keys_are(tmp_path: Path) -> None:
    first = run("keygen", "--params", "TOY_N128", "--home", tmp_path)
    second = run("keygen", "--params", "TOY_N128", "--home", tmp_path)
    assert first.returncode == 0
    assert str(tmp_path) in first.stdout
    assert second.stdout == first.stdout


def test_an_error_is_one_line_with_its_code(tmp_path: Path) -> None:
    done = run("keygen", "--params", "NONE", "--home", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("unknown_params: ")
    assert len(done.stderr.splitlines()) == 1


def test_no_server_is_said_so() -> None:
    picture = Path(__file__).resolve().parents[2] / "client" / "samples" / "mnist-0-is-7.png"
    done = run("predict", picture, "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("unreachable: ")
