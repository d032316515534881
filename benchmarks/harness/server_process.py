"""A real server in a process of its own, with its processes and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ciphershift.client.local_server import LocalServer, local_server


@dataclass(frozen=True, slots=True)
class ServerProcess(LocalServer):
    """A running server, with what the operating system knows about it."""

    def family(self) -> list[int]:
        """Returns the server's process id and those of its children."""
        lists = Path(f"/proc/{self.pid}/task").glob("*/children")  # each thread has children of its own
        return [self.pid, *(int(pid) for children in lists for pid in children.read_text().split())]

    def is_alive(self) -> bool:
        """Whether the server runs; a zombie does not."""
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
def running_server(**options: Any) -> Iterator[ServerProcess]:
    """Starts a server, waits until it is ready, and stops it in the end; takes what `client.local_server.local_server` takes."""
    with local_server(**options) as server:
        yield ServerProcess(server.url, server.pid, server.log)
