"""What a runner does at moments that a whole server meets by chance."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from ciphershift.server.notifier import Notifier
from ciphershift.server.runner import JobRunner


class SlowJobs:
    """A store whose claim takes until `go_on`."""

    def __init__(self) -> None:
        self.claiming, self.go_on = threading.Event(), threading.Event()
        self.job = object()
        self.calls: list[Any] = []

    def claim(self, runner_id: str) -> Any:
        self.claiming.set()
        assert self.go_on.wait(60)
        return self.job

    def release(self, job: Any) -> None:
        self.calls.append(job)

    def beat(self, runner_id: str, slots: int) -> None: ...

    def leave(self, runner_id: str) -> None:
        self.calls.append("left")


def test_a_job_that_is_claimed_while_the_runner_drains_is_released() -> None:
    jobs: Any = SlowJobs()

    async def stop() -> None:
        jobs.go_on.set()  # the engine is stopped behind the tasks

    engine: Any = SimpleNamespace(workers={"one": "ready"}, slots=1, start=lambda: None, stop=stop)
    settings: Any = SimpleNamespace(drain_seconds=0, lease_seconds=60)
    metrics: Any = SimpleNamespace(watch=lambda workers: None)
    none: Any = None

    async def drained_at_a_claim() -> None:
        runner = JobRunner(settings, jobs, none, engine, Notifier(), metrics, none)
        runner.start()
        await asyncio.to_thread(jobs.claiming.wait)
        await runner.drain()

    asyncio.run(drained_at_a_claim())
    assert jobs.calls == [jobs.job, "left"]
