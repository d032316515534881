"""Liveness, readiness and what this server is."""

from __future__ import annotations

from fastapi import APIRouter

from he_layers.crypto.errors import NotReadyError
from server.service import ServiceDep
from server.version import VERSION

router = APIRouter(tags=["health"])

EXTENSIONS = ("binary_tensor_data", "evaluation_keys")


@router.get("")
async def server_metadata() -> dict[str, object]:
    """Name, version and extensions of the protocol."""
    return {"name": "ciphershift", "version": VERSION, "extensions": EXTENSIONS}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Answers while the process runs, also while it computes."""
    return {"live": True}


@router.get("/health/ready")
async def ready(service: ServiceDep) -> dict[str, bool]:
    """Answers 200 once the models are loaded and a worker has answered."""
    if not service.engine.ready:
        raise NotReadyError("the workers are starting: try again in a few seconds")
    return {"ready": True}
