"""The tutorials' blocks run as they stand, one after the other."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from benchmarks.server_process import running_server
from models import data
from models.data import DataError

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+) ?([\w.-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        data.load("mnist")
    except DataError as error:
        pytest.skip(f"no MNIST here: {error}")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = BLOCK.findall((TUTORIALS / "own-network.md").read_text(encoding="utf-8"))
    assert len(blocks) == 9
    names: dict[str, object] = {}
    url = "http://127.0.0.1:8000"
    with ExitStack() as stack:
        for language, title, code in blocks:
            if title.endswith(".py"):
                (tmp_path / title).write_text(code)
            elif language == "python":
                exec(compile(code.replace("http://127.0.0.1:8000", url), f"<{title}>", "exec"), names)
            elif code.rstrip().endswith("&"):
                url = stack.enter_context(running_server(models=tmp_path / "zoo")).url  # on a port of its own
            elif title != "no-run":
                command = [sys.executable, *shlex.split(code)[1:]]
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
                assert done.returncode == 0, done.stdout + done.stderr
                assert "526 look-ups" in done.stdout
    printed = capsys.readouterr().out
    tuned = float(re.search(r"fine-tuned: ([\d.]+)", printed)[1])  # type: ignore[index]
    simulated = float(re.search(r"simulated accuracy: ([\d.]+)", printed)[1])  # type: ignore[index]
    assert tuned > 0.8
    assert simulated > 0.8
    encrypted, clear = re.search(r"encrypted: \[(.*?)\] in the clear: \[(.*?)\]", printed).groups()  # type: ignore[union-attr]
    assert sum(a == b for a, b in zip(encrypted.split(), clear.split(), strict=True)) >= 2
