"""The model repository extension: index, load, unload."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from ciphershift.server.api.deps import AdminCaller, InferCaller, ModelName, ServiceDep
from ciphershift.server.store.tenants import Scope

router = APIRouter(prefix="/v2/repository", tags=["repository"])


class IndexEntry(BaseModel):
    """One model of the repository."""

    name: str
    version: str
    state: str
    reason: str


@router.post("/index")
def index(service: ServiceDep, caller: InferCaller) -> list[IndexEntry]:
    """All models of the repository; the reason why one is not served, which may name files, for administrators only."""
    admin = Scope.ADMIN in caller.scopes
    return [
        IndexEntry(
            name=name,
            version=entry.model.program.version if entry.model else "",
            state="READY" if entry.model else "UNAVAILABLE",
            reason=entry.reason if admin or not entry.reason else "not served: its operator knows why",
        )
        for name, entry in service.repository.entries.items()
    ]


@router.post("/models/{name}/load")
def load(name: ModelName, service: ServiceDep, caller: AdminCaller) -> Response:
    """Loads a model from its folder and serves it."""
    service.models.load(name, caller.actor)
    return Response()


@router.post("/models/{name}/unload")
def unload(name: ModelName, service: ServiceDep, caller: AdminCaller) -> Response:
    """Takes a model out of service; accepted jobs are still evaluated."""
    service.models.unload(name, caller.actor)
    return Response()
