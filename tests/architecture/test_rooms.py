"""Who may know what: by contract (import-linter) and in the running processes."""

import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

import ciphershift
from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client, Keystore

ROOT = Path(__file__).resolve().parents[2]
SECRETS = (
    "tenseal",
    "ciphershift.he_layers.crypto.secret_keys",
    "ciphershift.he_layers.crypto.ckks",
    "ciphershift.he_layers.crypto.seal",
    "torch",
    "ciphershift.client",
)


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_no_secret_code_is_loaded_where_requests_are_served(
    zoo: Path, keystore: Keystore, tiny_images: NDArray[np.uint8]
) -> None:
    program = [str(Path(__file__).with_name("served.py")), "serve"]
    with running_server(models=zoo, allow_toy_parameters=True, program=program) as server:
        with Client(server.url, keystore=keystore, allow_toy_parameters=True) as client:
            assert client.predict(tiny_images[:1]).shape == (1, 3)
        loaded = httpx.get(f"{server.url}/modules").json()
    assert "ciphershift.he_layers.evaluate" in loaded["worker"]
    for process in ("server", "worker"):
        assert not {*SECRETS, "torch"} & set(loaded[process])


def test_the_client_runs_without_torch_and_networks() -> None:
    code = "import ciphershift.client, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {
        "torch",
        "ciphershift.server",
        "ciphershift.models",
        "ciphershift.he_layers.layers",
        "ciphershift.he_layers.program",
    } & set(done.stdout.split())


def test_the_package_loads_nothing_that_was_not_asked_for() -> None:
    code = "import ciphershift, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "tenseal", "fastapi", "httpx", "numpy"} & set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    for name in ciphershift.__all__:
        assert getattr(ciphershift, name) is not None
    assert set(ciphershift.__all__) <= set(dir(ciphershift))
    with pytest.raises(AttributeError, match="nonsense"):
        ciphershift.nonsense  # noqa: B018
