"""Which models are served, and all that a client must know to use one; nothing about weights."""

from __future__ import annotations

from fastapi import APIRouter

from he_layers.crypto.errors import NotReadyError
from server.profile import ModelProfile, profile_of
from server.service import ModelDep, ServiceDep

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
async def list_models(service: ServiceDep) -> dict[str, list[dict[str, str]]]:
    """The served models."""
    return {
        "models": [
            {"name": model.program.name, "version": model.program.version, "state": "READY"}
            for model in service.repository.values()
        ]
    }


@router.get("/{name}")
async def model_metadata(model: ModelDep) -> dict[str, object]:
    """Metadata in the protocol's form; `parameters` holds the profile's plain values."""
    profile = profile_of(model).model_dump()
    return {
        "name": model.program.name,
        "versions": [model.program.version],
        "platform": "ciphershift",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "logits", "datatype": "BYTES", "shape": [-1]}],
        "parameters": {key: value for key, value in profile.items() if isinstance(value, str | int | float)},
    }


@router.get("/{name}/ready")
async def model_ready(model: ModelDep, service: ServiceDep) -> dict[str, object]:
    """Answers 200 once a worker can evaluate the model."""
    if not service.engine.ready:
        raise NotReadyError("the workers are starting: try again in a few seconds")
    return {"name": model.program.name, "ready": True}


@router.get("/{name}/profile")
async def model_profile(model: ModelDep) -> ModelProfile:
    """All that a client needs to make keys, encode an input and read the answer."""
    return profile_of(model)
