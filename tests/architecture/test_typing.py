"""What a user's type checker sees."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
from ciphershift import Client, Program, convert
from ciphershift.errors import CiphershiftError


def top(url: str, pixels: list[list[int]]) -> int:
    try:
        with Client(url, model="mnist-tiny") as client:
            return int(client.predict(pixels).argmax())
    except CiphershiftError as error:
        print(error.code, error.message)
        return -1


reveal_type(Program.load)
reveal_type(convert)
"""


def test_a_users_script_is_checked_strictly(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(script)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "def (folder: pathlib.Path" in done.stdout
    assert "Network" in done.stdout

    script.write_text(SCRIPT.replace('model="mnist-tiny"', "model=3"))
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert 'Argument "model" to "Client" has incompatible type "int"' in done.stdout
