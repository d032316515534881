"""Liveness, readiness and server metadata."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from ciphershift import __version__
from ciphershift.server.api.deps import ServiceDep

router = APIRouter(prefix="/v2", tags=["health"])

EXTENSIONS = ("binary_tensor_data", "model_repository", "evaluation_keys", "jobs", "sse")


class ServerMetadata(BaseModel):
    """Name, version and extensions."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Live(BaseModel):
    """Liveness."""

    live: bool


class Ready(BaseModel):
    """Readiness."""

    ready: bool


@router.get("")
async def server_metadata() -> ServerMetadata:
    """Name, version and extensions of the protocol."""
    return ServerMetadata(name="ciphershift", version=__version__, extensions=EXTENSIONS)


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> Live:
    """Answers 200 while the process runs, also under full load."""
    return Live(live=True)


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready")
async def ready(service: ServiceDep) -> Ready:
    """Answers 200 once models are loaded, a worker is ready, and database and store are writable; 503 while stopping."""
    await service.check()
    return Ready(ready=True)
