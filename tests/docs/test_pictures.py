"""The diagrams of the architecture are up to date with the code."""

import subprocess
import sys
from pathlib import Path

from tests.support.documents import ROOT


def test_the_diagrams_show_the_code_as_it_is(tmp_path: Path) -> None:
    folder = ROOT / "docs" / "pictures"
    done = subprocess.run(
        [sys.executable, folder / "draw.py", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in folder.glob("*.svg")}
    for name in names:
        assert (tmp_path / name).read_text() == (folder / name).read_text(), f"{name} is old: make pictures"
