"""A server process on a free port of this machine, for a demonstration, a test or a benchmark.

The client does not import the server's code; it starts the command that an operator would, and talks to it over HTTP.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ciphershift.errors import ConfigurationError

START_SECONDS = 60.0
STOP_SECONDS = 15.0
SECRETS = ("CIPHERSHIFT_PASSPHRASE", "CIPHERSHIFT_API_KEY")  # the client's; no server has a use for them
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server.

    Attributes:
        url: where it listens.
        pid: its process.
        log: file of its stderr.
        api_key: of the tenant that was made for the caller, if one was asked for.
    """

    url: str
    pid: int
    log: Path
    api_key: str | None = field(default=None, repr=False)


@contextmanager
def local_server(
    *,
    storage: Path | None = None,
    program: Sequence[str] = ("-m", "ciphershift", "serve"),
    wait_until_ready: bool = True,
    tenant: str | None = None,
    **settings: object,
) -> Iterator[LocalServer]:
    """Starts a server, waits until it is ready, and stops it at the end.

    Args:
        storage: folder for its state; a temporary folder by default.
        program: arguments of the Python interpreter.
        wait_until_ready: False waits only until it listens.
        tenant: makes a tenant of this name with an API key, which every request then needs.
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
            "open": tenant is None,
            "drain_seconds": 5,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment |= {f"CIPHERSHIFT_{name.upper()}": str(value) for name, value in chosen.items()}
        if tenant is not None:
            _tenants(environment, "create", tenant)
        log = Path(folder, "server.log")
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *program],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=_end_with_parent(os.getpid()),
            )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on ").strip()
            api_key = None if tenant is None else _tenants(environment, "key", tenant)
            if wait_until_ready or not url:
                _wait_until_ready(process, url, log)
            yield LocalServer(url, process.pid, log, api_key)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _tenants(environment: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "ciphershift", "tenants", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(
            f"no API key could be made for the server on this machine: {done.stderr[-2000:].strip()}"
        )
    return done.stdout.strip()


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Returns what the child runs before the server: on Linux it asks to be terminated when this process dies, even by SIGKILL.

    The kernel means the thread that starts the child, so only the main thread can ask for it.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os._exit(1)

    return ask


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
