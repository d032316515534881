"""What the routes work with: the parts of one running service, and how they start and end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ciphershift.errors import NotReadyError
from ciphershift.server import logs
from ciphershift.server.engine import make_engine
from ciphershift.server.metrics import Metrics
from ciphershift.server.notifier import Changes
from ciphershift.server.repository import Model, Repository
from ciphershift.server.runner import Runner, surviving
from ciphershift.server.settings import Settings
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database, Job
from ciphershift.server.store.jobs import JobStore
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.model_states import ModelStates
from ciphershift.server.store.tenants import Caller, Scope, TenantStore

SWEEP_SECONDS = 1.0
WATCH_SECONDS = 0.25  # between two looks at the jobs that somebody waits for
_log = logs.get("service")


class Service:
    """The parts of one service process: of the API, which may have a runner, or of a runner alone."""

    def __init__(self, settings: Settings) -> None:
        """Opens database, store and models.

        Raises:
            NotReadyError: the database needs a migration first.
        """
        self.settings = settings
        self.database = Database.open(settings.database_url)
        self.blobs = Blobs(settings)
        self.repository = Repository(settings)
        self.models = ModelStates(self.database, self.repository)
        self.jobs = JobStore(self.database, self.blobs, settings)
        self.keys = KeyStore(self.database, self.blobs, settings, lambda: self.repository.key_bytes)
        self.tenants = TenantStore(self.database)
        self.changes = Changes()
        self.metrics = Metrics()
        engine = make_engine(settings)
        self.runner = (
            None if engine is None else Runner(settings, self.jobs, self.keys, engine, self.changes, self.metrics)
        )
        self._drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the runner, if there is one, and the sweeps."""
        await asyncio.to_thread(self.models.follow)
        if self.runner is not None:
            self.runner.start()
        self._tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self._watch())]

    async def drain(self) -> None:
        """Is not ready any more, lets running jobs finish for a while, and keeps the others for later."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._do_drain())
        await self._drain

    @property
    def draining(self) -> bool:
        """Whether requests are refused because the process is going to end."""
        return self._drain is not None

    @property
    def drained(self) -> bool:
        """Whether the runner of this process has ended, so that what is unfinished stays so for a while."""
        return self.runner is not None and self._drain is not None and self._drain.done()

    async def stop(self) -> None:
        """Ends everything."""
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.database.close()

    async def check(self) -> None:
        """Returns if requests would be served.

        Raises:
            NotReadyError: it says what is missing.
        """
        if self.draining:
            raise NotReadyError("the server is stopping")
        if self.runner is not None and not self.runner.ready:
            raise NotReadyError("the workers are starting: try again in a few seconds")
        ready = False
        with surviving("check"):
            await asyncio.to_thread(self.blobs.check)
            ready = await asyncio.to_thread(self.jobs.slots) > 0
        if not ready:
            raise NotReadyError("database or store are away, or no worker has been heard of (ciphershift worker)")

    async def _do_drain(self) -> None:
        _log.info("draining")
        if self.runner is not None:
            await self.runner.drain()

    async def _sweep(self) -> None:
        while True:
            with surviving("sweep"):
                await asyncio.to_thread(self.models.follow)
                for job_id in await asyncio.to_thread(self.jobs.sweep):
                    self.changes.ring(job_id)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _watch(self) -> None:
        known: dict[str, int] = {}
        while True:
            with surviving("watch"):
                waited = self.changes.jobs()
                found = await asyncio.to_thread(self.jobs.revisions, waited) if waited else {}
                for job_id in waited:
                    if job_id not in found or found[job_id] != known.get(job_id):
                        self.changes.ring(job_id)
                known = found
            await asyncio.sleep(WATCH_SECONDS)


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceDep = Annotated[Service, Depends(_service)]


def _caller(
    request: Request,
    service: ServiceDep,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> Caller:
    tenants = service.tenants
    caller = tenants.open() if service.settings.open else tenants.authenticate(request.headers.get("Authorization"))
    request.state.tenant = caller.name
    return caller


def _may(scope: Scope) -> Callable[[Caller], Caller]:
    def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        caller.require(scope)
        return caller

    return check


# Who asks, and may do so.
InferCaller = Annotated[Caller, Depends(_may(Scope.INFER))]
KeysCaller = Annotated[Caller, Depends(_may(Scope.KEYS))]
AdminCaller = Annotated[Caller, Depends(_may(Scope.ADMIN))]


ModelName = Annotated[str, Path(max_length=128)]


def _model(service: ServiceDep, _: InferCaller, name: ModelName) -> Model:
    return service.repository[name]


ModelDep = Annotated[Model, Depends(_model)]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bundle's payload, in hex")]


def _job(service: ServiceDep, caller: InferCaller, job_id: Annotated[str, Path(max_length=64)]) -> Job:
    return service.jobs.get(caller.tenant_id, job_id)


JobDep = Annotated[Job, Depends(_job)]
