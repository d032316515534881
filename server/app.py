"""The FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ciphershift import __version__
from ciphershift.protocol.site import Site
from ciphershift.server.api import description, origins, problems
from ciphershift.server.api.browsers import SameOriginMiddleware
from ciphershift.server.api.middleware import RequestLogMiddleware
from ciphershift.server.api.routes import health, infer, jobs, keys, metrics, models, repository
from ciphershift.server.service import Service
from ciphershift.server.settings import Settings


def create_app(settings: Settings, *, api: bool = True) -> FastAPI:
    """Returns the application of a service.

    Args:
        settings: the operator's.
        api: whether to serve requests; if False, only health and metrics, beside a job runner.

    Raises:
        NotReadyError: the database needs a migration first.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="ciphershift",
        version=__version__,
        lifespan=lifespan,
        responses=problems.RESPONSES,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    description.install(app, for_people=not settings.page)
    if settings.open:
        app.add_middleware(
            SameOriginMiddleware, hosts=settings.hosts, any_host=settings.open_to_network, origins=settings.origins
        )
    origins.install(app, settings.origins)  # within what counts and logs requests
    app.add_middleware(RequestLogMiddleware, metrics=service.metrics, tracing=service.tracing)
    problems.install(app)
    app.include_router(health.router)
    if settings.metrics:
        app.include_router(metrics.router)
    if api:
        for router in (models.router, keys.router, infer.router, jobs.router, repository.router):
            app.include_router(router)
        if settings.page:
            app.mount("/page", Site(settings.page_onnxruntime), name="page")
    return app
