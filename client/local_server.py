"""A server process on a free port of this machine, for a demonstration, a test or a benchmark.

The client does not import the server's code; it starts the command that an operator would, and talks to it over HTTP.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ciphershift.errors import ConfigurationError

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server."""

    url: str
    pid: int
    log: Path


@contextmanager
def local_server(
    *,
    storage: Path | None = None,
    program: Sequence[str] = ("-m", "ciphershift", "serve"),
    wait_until_ready: bool = True,
    **settings: object,
) -> Iterator[LocalServer]:
    """Starts a server, waits until it is ready, and stops it at the end.

    Args:
        storage: folder for its state; a temporary folder by default.
        program: arguments of the Python interpreter.
        wait_until_ready: False waits only until it listens.
        settings: the server's settings, by the names of its environment variables without CIPHERSHIFT_; it asks for API keys only if
            `open` is False.

    Raises:
        ConfigurationError: it does not start; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="ciphershift-") as folder:
        chosen = {
            "storage": storage or folder,
            "host": "127.0.0.1",
            "port": 0,
            "open": True,
            "drain_seconds": 5,
            **settings,
        }
        environment = os.environ | {f"CIPHERSHIFT_{name.upper()}": str(value) for name, value in chosen.items()}
        log = Path(folder, "server.log")
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *program], env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on ").strip()
            if wait_until_ready or not url:
                _wait_until_ready(process, url, log)
            yield LocalServer(url, process.pid, log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _wait_until_ready(process: subprocess.Popen[str], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None and url:
        try:
            if httpx.get(f"{url}/v2/health/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    said = log.read_text()[-2000:]
    if "ModuleNotFoundError" in said:
        raise ConfigurationError(
            f"the server's packages are not installed ({said.splitlines()[-1]}): pip install 'ciphershift[server]', "
            "or name a server that runs elsewhere"
        )
    raise ConfigurationError(f"the server on this machine did not become ready; its log ends with\n{said}")
