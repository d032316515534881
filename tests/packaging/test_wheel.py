"""The built package, as users get it: installed into clean environments, without a compiler, run from another folder."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.architecture.test_typing import SCRIPT

ROOT = Path(__file__).resolve().parents[2]
MAX_WHEEL_BYTES = 3 * 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a clean checkout, and the wheel built from that sdist."""
    work = tmp_path_factory.mktemp("dist")
    checkout = work / "checkout"
    checkout.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    archive = work / "tree.tar"
    run("tar", "--create", "--file", archive, "--null", "--files-from", _listed(work, files.stdout), cwd=ROOT)
    run("tar", "--extract", "--file", archive, cwd=checkout)
    run(sys.executable, "-m", "build", "--quiet", "--outdir", work / "dist", checkout, cwd=work)
    return work / "dist"


def _listed(work: Path, names: bytes) -> Path:
    present = [name for name in names.split(b"\0") if name and os.path.lexists(ROOT / os.fsdecode(name))]
    path = work / "files"
    path.write_bytes(b"\0".join(present))
    return path


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel."""
    return next(dist.glob("*.whl"))


class Environment:
    """A virtual environment with the wheel and what a lock or an extra needs; no compiler is on its path."""

    def __init__(self, folder: Path, wheel: Path, extra: str = "", lock: Path | None = None) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.packages = next(folder.glob("lib/python*/site-packages"))
        kept = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "HOME"}
        proxies = {name for name in os.environ if name.lower().endswith("_proxy")}
        self.env = {name: os.environ[name] for name in kept | proxies if name in os.environ} | {"PATH": str(self.bin)}
        self.before = self.names()
        install = (self.bin / "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:")
        if lock is None:
            run(*install, "-c", ROOT / "constraints.txt", f"{wheel}[{extra}]", cwd=folder, env=self.env)
        else:
            run(*install, "--require-hashes", "-r", lock, cwd=folder, env=self.env)
            run(*install, "--no-deps", wheel, cwd=folder, env=self.env)

    def names(self) -> set[str]:
        return {path.name for path in self.packages.iterdir()}


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An application developer's environment."""
    return Environment(tmp_path_factory.mktemp("user"), wheel, "client")


@pytest.fixture(scope="module")
def operator(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An operator's environment."""
    return Environment(tmp_path_factory.mktemp("operator"), wheel, "server")


@pytest.fixture(scope="module")
def image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An operator's environment, as the container image has it."""
    return Environment(tmp_path_factory.mktemp("image"), wheel, lock=ROOT / "deploy/locks/server.txt")


def test_the_wheel_holds_one_package_and_nothing_for_developers(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"ciphershift"}
    assert "ciphershift/py.typed" in names
    assert {"ciphershift/client/page/site/page.js", "ciphershift/models/zoo/mnist-tiny/inputs.json"} <= set(names)
    unwanted = re.compile(r"^ciphershift/(benchmarks|tests)/|\.(hpp|cpp)$|CMakeLists|/float\.safetensors$")
    assert not [name for name in names if unwanted.search(name)]
    networks = {name.split("/")[3] for name in names if re.match(r"^ciphershift/models/zoo/[^/]+/", name)}
    assert networks == {card.parent.name for card in (ROOT / "models/zoo").glob("*/card.json")} - {
        "cifar10-dshe",
        "cifar10-she",
        "mnist-gated",
    }
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_installing_adds_one_name(user: Environment) -> None:
    (record,) = user.packages.glob("ciphershift-*.dist-info/RECORD")
    names = {line.partition("/")[0] for line in record.read_text().splitlines() if not line.startswith("../")}
    assert names == {"ciphershift", record.parent.name}
    assert names <= user.names() - user.before
    assert (user.packages / "ciphershift" / "py.typed").is_file()


def test_a_users_script_is_checked_strictly(user: Environment, tmp_path: Path) -> None:
    """By a mypy from elsewhere, which sees what this environment has."""
    (tmp_path / "script.py").write_text(SCRIPT)
    checker = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", user.bin / "python")
    printed = run(*checker, "--cache-dir", tmp_path / "cache", tmp_path / "script.py", cwd=tmp_path)
    assert "def (folder: pathlib.Path" in printed


def test_the_readme_example_runs_between_two_installations(
    user: Environment, operator: Environment, tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text()
    example = next(block for block in re.findall(r"```python[^\n]*\n(.*?)```", readme, re.DOTALL) if "Client(" in block)
    sample = ROOT / "client" / "samples" / "mnist-0-is-7.png"
    with serving(operator, tmp_path / "state") as url:
        env = user.env | {"CIPHERSHIFT_HOME": str(tmp_path / "keys")}
        (tmp_path / "example.py").write_text(example.replace("http://127.0.0.1:8000", url))
        printed = run(user.bin / "python", "example.py", cwd=tmp_path, env=env)
        command = run(
            user.bin / "ciphershift", "predict", sample, "--url", url, "--model", "mnist-tiny", cwd=tmp_path, env=env
        )
    assert "7" in printed.split("]")[0]
    assert re.search(r"is-7\.png: 7 ", command)


@contextmanager
def serving(operator: Environment, state: Path) -> Iterator[str]:
    """An installed server on a free port of the loopback address."""
    env = operator.env | {"CIPHERSHIFT_OPEN": "true", "CIPHERSHIFT_PORT": "0", "CIPHERSHIFT_STORAGE": str(state)}
    state.mkdir()
    process = subprocess.Popen(
        [operator.bin / "ciphershift", "serve"],
        cwd=state,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_servers_need_neither_torch_nor_tenseal(operator: Environment, image: Environment, tmp_path: Path) -> None:
    code = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('tenseal'))"
    for environment in (operator, image):
        printed = run(environment.bin / "python", "-c", code, cwd=tmp_path, env=environment.env)
        assert printed.split() == ["None", "None"]
        assert "CIPHERSHIFT_PORT=8000" in run(
            environment.bin / "ciphershift", "settings", cwd=tmp_path, env=environment.env
        )


def test_a_command_without_its_packages_says_what_to_install(operator: Environment, tmp_path: Path) -> None:
    done = subprocess.run(
        [operator.bin / "ciphershift", "predict", "x.png"],
        cwd=tmp_path,
        env=operator.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("configuration: ")
    assert "pip install 'ciphershift[client]'" in done.stderr
