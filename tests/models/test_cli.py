"""The models' commands do without the client's packages, but for the one that encrypts."""

import subprocess
import sys
from pathlib import Path

import pytest

NO_CLIENT = "import sys; sys.modules['tenseal'] = None; from ciphershift.cli import main; main({arguments!r})"


@pytest.mark.parametrize(("arguments", "status"), [(["models"], 0), (["verify", "mnist-tiny"], 1)])
def test_only_what_encrypts_needs_tenseal(arguments: list[str], status: int, tmp_path: Path) -> None:
    code = NO_CLIENT.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.startswith("configuration: tenseal")
        assert "pip install 'ciphershift[client,models]'" in done.stderr
    else:
        assert "FAST_N5" in done.stdout
