"""Liveness, readiness and what this server is."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from ciphershift.server.service import ServiceDep
from ciphershift.server.version import VERSION

router = APIRouter(prefix="/v2", tags=["health"])

EXTENSIONS = ("binary_tensor_data", "model_repository", "evaluation_keys", "jobs", "sse")


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Live(BaseModel):
    """The process runs."""

    live: bool


class Ready(BaseModel):
    """Requests are served."""

    ready: bool


@router.get("")
async def server_metadata() -> ServerMetadata:
    """Name, version and extensions of the protocol."""
    return ServerMetadata(name="ciphershift", version=VERSION, extensions=EXTENSIONS)


@router.get("/health/live")
async def live() -> Live:
    """Answers while the process runs, also while it computes."""
    return Live(live=True)


@router.get("/health/ready")
async def ready(service: ServiceDep) -> Ready:
    """Answers 200 once models are loaded, a worker has answered, and database and store can be written to; not while stopping."""
    await service.check()
    return Ready(ready=True)
