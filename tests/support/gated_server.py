"""A server whose workers stop where a test wants them to, so that no test depends on how fast the machine computes.

A `Gate` names, in a file, the number of layers after which every job is held. A held worker reports its last layer again and again,
as one would that computes a very slow layer: progress, cancellation, drains and lost workers are those of the real thing.
`changes` of a server is JSON: other values for constants of its code, by their full names.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

STARTING = 0  # holds workers before they are ready
_OPEN = 1 << 60


class Gate:
    """Where jobs are held. Every change is seen by all workers within a few milliseconds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hold(self, layers: int) -> None:
        """Holds every job once so many of its layers are done; STARTING holds workers that start."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(str(layers))
        temporary.replace(self.path)

    def open(self) -> None:
        """Holds nothing."""
        self.hold(_OPEN)

    def holds(self, layers: int) -> bool:
        """Whether a job with so many layers done is held."""
        return self.path.exists() and layers >= int(self.path.read_text())


def _install() -> None:
    from ciphershift.server.engine import local
    from ciphershift.server.engine.base import LayerProgress, Task, TaskResult
    from ciphershift.server.engine.worker import KernelWorker

    gate = Gate(Path(os.environ["CIPHERSHIFT_GATE"]))

    class GatedWorker(KernelWorker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._done: Counter[str] = Counter()  # layers of each job
            while gate.holds(STARTING):
                time.sleep(0.005)

        def run(self, task: Task) -> Iterator[LayerProgress | TaskResult]:
            for item in super().run(task):
                self._done[task.job_id] += isinstance(item, LayerProgress)
                yield item
                while isinstance(item, LayerProgress) and gate.holds(self._done[task.job_id]):
                    time.sleep(0.005)
                    yield item

    local.KernelWorker = GatedWorker  # type: ignore[attr-defined, assignment]


if __name__ == "__main__":
    from ciphershift.cli import main

    for name, value in json.loads(os.environ.get("CIPHERSHIFT_CHANGES", "{}")).items():
        module, _, constant = name.rpartition(".")
        setattr(import_module(module), constant, value)
    main()
elif __name__ == "__mp_main__":  # a spawned worker imports the program of its parent
    _install()
