"""The model repository extension: index, load, unload."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from ciphershift.server.api.deps import AdminCaller, InferCaller, ModelName, ServiceDep

router = APIRouter(prefix="/v2/repository", tags=["repository"])


class IndexEntry(BaseModel):
    """One model of the repository."""

    name: str
    version: str
    state: str
    reason: str


@router.post("/index")
def index(service: ServiceDep, _: InferCaller) -> list[IndexEntry]:
    """All models of the repository, with the reason if one is not served."""
    return [
        IndexEntry(
            name=name,
            version=entry.model.program.version if entry.model else "",
            state="READY" if entry.model else "UNAVAILABLE",
            reason=entry.reason,
        )
        for name, entry in service.repository.entries.items()
    ]


@router.post("/models/{name}/load")
def load(name: ModelName, service: ServiceDep, _: AdminCaller) -> Response:
    """Loads a model from its folder and serves it."""
    service.models.load(name)
    return Response()


@router.post("/models/{name}/unload")
def unload(name: ModelName, service: ServiceDep, _: AdminCaller) -> Response:
    """Takes a model out of service; accepted jobs are still evaluated."""
    service.models.unload(name)
    return Response()
