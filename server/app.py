"""The application: routes over a model repository, a key store and an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from server import problems
from server.engine.local import LocalEngine
from server.keys import KeyStore
from server.repository import Repository
from server.routes import health, infer, keys, models
from server.service import Service
from server.settings import Settings
from server.version import VERSION


def create_app(settings: Settings) -> FastAPI:
    """Returns the service under these settings.

    Raises:
        ProgramError, ParameterError: a model of the repository cannot be served.
    """
    repository = Repository(settings.models, allow_toy_parameters=settings.allow_toy_parameters)
    service = Service(
        settings=settings,
        repository=repository,
        keys=KeyStore(settings.storage / "keys", repository.key_bytes, settings.storage_bytes),
        engine=LocalEngine(settings),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        await service.engine.stop()

    app = FastAPI(title="ciphershift", version=VERSION, lifespan=lifespan)
    app.state.service = service
    problems.install(app)
    for router in (health.router, models.router, keys.router, infer.router):
        app.include_router(router, prefix="/v2")
    return app
