"""The served models and their profiles; nothing about weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ciphershift.errors import UnknownModelError
from ciphershift.protocol.schemas import ModelInputs
from ciphershift.server.api.deps import InferCaller, ModelDep, ServiceDep
from ciphershift.server.api.profile import ModelProfile, profile_of

PIECE_BYTES = 1 << 16  # of a long answer: the next one is not made before the client has taken the last
router = APIRouter(prefix="/v2/models", tags=["models"])


ONNX: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


class ModelSummary(BaseModel):
    """One served model."""

    name: str
    version: str
    state: str


class ModelList(BaseModel):
    """The served models."""

    models: list[ModelSummary]


class TensorMetadata(BaseModel):
    """A tensor of requests or answers."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(BaseModel):
    """A model in the protocol's form."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, str | int | float]


class ModelReady(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


@router.get("")
async def list_models(service: ServiceDep, _: InferCaller) -> ModelList:
    """The served models."""
    return ModelList(
        models=[
            ModelSummary(name=name, version=model.program.version, state="READY")
            for name, model in service.repository.items()
        ]
    )


@router.get("/{name}/versions/{version}", include_in_schema=False)
@router.get("/{name}")
async def model_metadata(model: ModelDep, service: ServiceDep) -> ModelMetadata:
    """Metadata in the protocol's form; `parameters` has the scalar values of the profile."""
    profile = profile_of(model, service.settings.max_batch).model_dump()
    return ModelMetadata(
        name=model.program.name,
        versions=[model.program.version],
        platform="ciphershift",
        inputs=[TensorMetadata(name="image", datatype="BYTES", shape=(-1,))],
        outputs=[TensorMetadata(name="logits", datatype="BYTES", shape=(-1,))],
        parameters={key: value for key, value in profile.items() if isinstance(value, str | int | float)},
    )


@router.get("/{name}/versions/{version}/ready", include_in_schema=False)
@router.get("/{name}/ready")
async def model_ready(model: ModelDep, service: ServiceDep) -> ModelReady:
    """Answers 200 once a worker can evaluate the model."""
    await service.check()
    return ModelReady(name=model.program.name, ready=True)


@router.get("/{name}/versions/{version}/profile", include_in_schema=False)
@router.get("/{name}/profile")
async def model_profile(model: ModelDep, service: ServiceDep) -> ModelProfile:
    """What a client needs to make keys, encode images and decode answers."""
    return profile_of(model, service.settings.max_batch)


@router.get("/{name}/inputs")
async def model_inputs(model: ModelDep) -> ModelInputs:
    """What people who make inputs may want to know: what images are, and examples."""
    return model.inputs


@router.get("/{name}/versions/{version}/stem", include_in_schema=False)
@router.get("/{name}/stem", response_class=Response, responses=ONNX)
async def model_stem(model: ModelDep, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The public part of a model that has one: the ONNX file that the client computes before it encrypts. Its digest is in the profile."""
    stem = model.program.stem
    if stem is None:
        raise UnknownModelError(f"{model.program.name} has no public part: encrypt the image itself")
    tag = f'"{stem.sha256}"'
    known = {item.strip().removeprefix("W/") for item in (if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers={"ETag": tag})
    headers = {"ETag": tag, "Content-Length": str(len(stem.onnx))}
    return StreamingResponse(_pieces(stem.onnx), media_type="application/octet-stream", headers=headers)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
