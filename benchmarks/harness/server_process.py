"""A real server in a process of its own, with its processes and its memory."""

from __future__ import annotations

import os
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
        return [self.pid, *children(self.pid)]

    def descendants(self) -> list[int]:
        """Returns the process ids of its children, of their children, and so on."""
        found, of = [], [self.pid]
        while of:
            of = [child for pid in of for child in children(pid)]
            found += of
        return found

    def workers(self) -> set[int]:
        """Returns the process ids of the worker processes."""
        return {pid for pid in children(self.pid) if "spawn_main" in told(pid, "cmdline")}

    def is_alive(self) -> bool:
        """Whether the server runs; a zombie does not."""
        return is_running(self.pid)

    def memory_bytes(self) -> int | None:
        """Returns the sum of the resident sizes of server and workers; None where the system does not tell."""
        return self._sizes("VmRSS")

    def peak_memory_bytes(self) -> int | None:
        """Returns the sum of the peak resident sizes of server and workers; None where the system does not tell."""
        return self._sizes("VmHWM")

    def _sizes(self, name: str) -> int | None:
        lines = [line for pid in self.family() for line in told(pid, "status").splitlines() if line.startswith(name)]
        return sum(int(line.split()[1]) << 10 for line in lines) if lines else None


def children(pid: int) -> list[int]:
    """Returns the process ids of a process's children; none if it has ended, or the system does not tell."""
    # Each thread has children of its own, and may end while they are read.
    threads = Path(f"/proc/{pid}/task")
    return [int(child) for thread in threads.glob("*") for child in told(pid, f"task/{thread.name}/children").split()]


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    status = told(pid, "status")
    return bool(status) and "State:\tZ" not in status


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken; 0 if it has ended, or the system does not tell."""
    # From the third field on: the second is a name, and may hold anything.
    fields = told(pid, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def told(pid: int, what: str) -> str:
    """What the system says of a process in this file; nothing if it has ended, or the system does not tell."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""


@contextmanager
def running_server(**options: Any) -> Iterator[ServerProcess]:
    """Starts a server, waits until it is ready, and stops it in the end; takes what `client.local_server.local_server` takes."""
    with local_server(**options) as server:
        yield ServerProcess(server.url, server.pid, server.log)
