"""Upload of evaluation keys under their digest: idempotent, streamed, checked before they become visible."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ciphershift.server.api import body
from ciphershift.server.api.deps import KeyId, KeysCaller, ServiceDep
from ciphershift.server.store.keys import KeyInfo

router = APIRouter(prefix="/v2/keys", tags=["keys"])


@router.put("/{key_id}", status_code=201, openapi_extra=body.BINARY)
async def put_keys(key_id: KeyId, request: Request, service: ServiceDep, caller: KeysCaller) -> KeyInfo:
    """Stores a bundle of evaluation keys (a binary container)."""
    chunks = body.stream(request, service.keys.upload_limit)
    return await service.keys.add(caller.tenant_id, key_id, chunks, body.announced(request))


@router.head("/{key_id}")
def has_keys(key_id: KeyId, service: ServiceDep, caller: KeysCaller) -> Response:
    """Answers 200 if the bundle is stored, 404 if it must be uploaded."""
    service.keys.find(caller.tenant_id, key_id)
    return Response()


@router.get("/{key_id}")
def describe_keys(key_id: KeyId, service: ServiceDep, caller: KeysCaller) -> KeyInfo:
    """Size and parameter set of a bundle."""
    return service.keys.find(caller.tenant_id, key_id)


@router.delete("/{key_id}", status_code=204)
def delete_keys(key_id: KeyId, service: ServiceDep, caller: KeysCaller) -> Response:
    """Deletes a bundle."""
    service.keys.delete(caller.tenant_id, key_id)
    return Response(status_code=204)
