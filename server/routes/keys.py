"""Upload of evaluation keys under their own digest: idempotent, streamed, checked before it becomes visible."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from server import body
from server.service import KeyId, ServiceDep

router = APIRouter(prefix="/keys", tags=["keys"])


@router.put("/{key_id}", status_code=201)
async def put_keys(key_id: KeyId, request: Request, service: ServiceDep) -> dict[str, object]:
    """Stores a bundle of evaluation keys (a binary container)."""
    chunks = body.stream(request, service.keys.upload_limit)
    return asdict(await service.keys.add(key_id, chunks))


@router.head("/{key_id}")
async def has_keys(key_id: KeyId, service: ServiceDep) -> Response:
    """Answers 200 if the bundle is here, 404 if it must be uploaded."""
    service.keys.find(key_id)
    return Response()


@router.get("/{key_id}")
async def describe_keys(key_id: KeyId, service: ServiceDep) -> dict[str, object]:
    """Size and parameter set of a bundle."""
    return asdict(service.keys.describe(key_id))


@router.delete("/{key_id}", status_code=204)
async def delete_keys(key_id: KeyId, service: ServiceDep) -> Response:
    """Forgets a bundle."""
    service.keys.delete(key_id)
    return Response(status_code=204)
