"""A server that tells what its process and its worker have imported. Run by test_rooms.py."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from ciphershift.server.app import create_app
from ciphershift.server.cli import serve as command
from ciphershift.server.engine import local
from ciphershift.server.engine.base import LayerProgress, Task, TaskResult
from ciphershift.server.engine.worker import KernelWorker
from ciphershift.server.settings import Settings

WORKER_MODULES = Path(os.environ["CIPHERSHIFT_STORAGE"], "worker-modules.json")


def spying_app(settings: Settings, **options: Any) -> FastAPI:
    app = create_app(settings, **options)

    @app.get("/modules")
    def modules() -> dict[str, list[str]]:
        return {"server": list(sys.modules), "worker": json.loads(WORKER_MODULES.read_text())}

    return app


class SpyingWorker(KernelWorker):
    def run(self, task: Task) -> Iterator[LayerProgress | TaskResult]:
        for item in super().run(task):
            WORKER_MODULES.write_text(json.dumps(list(sys.modules)))
            yield item


if __name__ == "__main__":
    command.create_app = spying_app  # type: ignore[attr-defined]
    command.app()
else:  # a spawned worker imports the program of its parent, too
    local.KernelWorker = SpyingWorker  # type: ignore[attr-defined]
