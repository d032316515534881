"""A real server in a process of its own, on a free port of the loopback address."""

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

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server."""

    url: str
    pid: int
    log: Path

    def family(self) -> list[int]:
        """Returns the server's process id and those of its children."""
        lists = Path(f"/proc/{self.pid}/task").glob("*/children")  # each thread has children of its own
        return [self.pid, *(int(pid) for children in lists for pid in children.read_text().split())]

    def is_alive(self) -> bool:
        """Whether the server runs; a process that has ended but was not waited for does not."""
        status = Path(f"/proc/{self.pid}/status")
        try:
            return "State:\tZ" not in status.read_text()
        except OSError:
            return False

    def memory_bytes(self) -> int | None:
        """Returns the sum of the resident sizes of server and workers; None where the system does not tell."""
        return self._sizes("VmRSS")

    def peak_memory_bytes(self) -> int | None:
        """Returns the sum of the peak resident sizes of server and workers; None where the system does not tell."""
        return self._sizes("VmHWM")

    def _sizes(self, name: str) -> int | None:
        try:
            texts = [Path(f"/proc/{pid}/status").read_text() for pid in self.family()]
        except OSError:
            return None
        return sum(int(line.split()[1]) << 10 for text in texts for line in text.splitlines() if line.startswith(name))


@contextmanager
def running_server(
    *,
    storage: Path | None = None,
    program: Sequence[str] = ("-m", "server"),
    wait_until_ready: bool = True,
    **settings: object,
) -> Iterator[ServerProcess]:
    """Starts a server, waits until it is ready, and stops it in the end.

    Args:
        storage: where it keeps its state; a temporary folder by default.
        program: what Python runs.
        wait_until_ready: or only until it listens.
        settings: fields of server.settings.Settings; needs no API keys unless `open` is False.
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
            yield ServerProcess(url, process.pid, log)
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
            if httpx.get(f"{url}/v2/health/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text()[-2000:]}")
