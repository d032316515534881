"""The application: routes over the parts of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ciphershift.server.api import origins, problems
from ciphershift.server.api.middleware import Requests
from ciphershift.server.api.routes import health, infer, jobs, keys, metrics, models, repository
from ciphershift.server.service import Service
from ciphershift.server.settings import Settings
from ciphershift.server.version import VERSION


def create_app(settings: Settings, *, api: bool = True) -> FastAPI:
    """Returns the service under these settings.

    Args:
        settings: what the operator has chosen.
        api: whether requests are served; else there are health and metrics alone, around a runner that takes jobs from the database.

    Raises:
        NotReadyError: the database needs a migration first.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="ciphershift", version=VERSION, lifespan=lifespan, responses=problems.RESPONSES)
    app.state.service = service
    origins.install(app, settings.origins)  # within what counts and logs requests
    app.add_middleware(Requests, metrics=service.metrics)
    problems.install(app)
    app.include_router(health.router)
    if settings.metrics:
        app.include_router(metrics.router)
    if api:
        for router in (models.router, keys.router, infer.router, jobs.router, repository.router):
            app.include_router(router)
    return app
