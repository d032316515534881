"""The client's commands: what they print, and how they fail."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ciphershift.client.local_server import local_server
from ciphershift.errors import ConfigurationError


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ciphershift", *map(str, arguments)]
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
    picture = Path(__file__).resolve().parents[3] / "client" / "samples" / "mnist-0-is-7.png"
    done = run("predict", picture, "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("unreachable: ")


def test_the_page_says_what_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; sys.argv = ['client', 'demo', '--no-browser']\n"
        "from client.cli.predict import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("configuration: the page needs starlette")
    assert "pip install 'ciphershift[demo]'" in done.stderr


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run("demo", "--no-browser", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1
    assert re.match(r"configuration: port \d+ cannot be used .*: choose another", done.stderr)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_package", "No module named 'no_such_package'.*pip install 'ciphershift\\[server\\]'"),
        ("raise SystemExit('no room on the disk')", "did not become ready; its log ends with\nno room on the disk"),
    ],
)
def test_a_server_that_does_not_start_says_why(code: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why), local_server(program=("-c", code)):
        pass
