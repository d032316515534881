"""Inference on encrypted images by the binary tensor data extension, synchronously or as a job."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from ciphershift.errors import BadShapeError, CanceledError, MalformedError, NotReadyError
from ciphershift.protocol import container, tensors
from ciphershift.protocol.schemas import JobView
from ciphershift.server.api import body, schemas
from ciphershift.server.api.deps import InferCaller, ModelDep, ServiceDep
from ciphershift.server.notifier import QUEUE, notified
from ciphershift.server.repository import Model
from ciphershift.server.service import Service
from ciphershift.server.store.database import Job
from ciphershift.server.store.jobs import JobRequest
from ciphershift.server.store.states import FINISHED
from ciphershift.server.store.tenants import Caller

POLL_SECONDS = 0.25  # between two checks that the client is still connected
router = APIRouter(prefix="/v2/models", tags=["inference"])

HeaderLength = Annotated[str | None, Header(alias=tensors.HEADER_LENGTH, description="bytes of the body's JSON header")]
IdempotencyKey = Annotated[
    str | None,
    Header(pattern="^[!-~]{1,64}$", description="a repeated request with the same key and body returns the same job"),
]
Prefer = Annotated[str | None, Header(description="respond-async: answer 202 with a job")]
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
_JOB_ANSWER: dict[int | str, dict[str, Any]] = {202: {"model": JobView, "description": "Accepted; Location is the job"}}


@router.post("/{name}/versions/{version}/infer", response_class=Response, include_in_schema=False)
@router.post("/{name}/infer", response_class=Response, responses=BINARY_ANSWER | _JOB_ANSWER, openapi_extra=body.BINARY)
async def infer(
    model: ModelDep,
    service: ServiceDep,
    caller: InferCaller,
    request: Request,
    header_length: HeaderLength = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Response:
    """Evaluates the model on each encrypted image; the answer has one encrypted row of logits per image."""
    job = await _submit(model, service, caller, request, header_length, idempotency_key)
    if prefer is not None and "respond-async" in prefer:
        return _accepted(job, {"Preference-Applied": "respond-async"})
    job = await _finished(service, request, job)
    return await asyncio.to_thread(answer, service, job)


@router.post("/{name}/versions/{version}/jobs", status_code=202, response_model=JobView, include_in_schema=False)
@router.post("/{name}/jobs", status_code=202, response_model=JobView, openapi_extra=body.BINARY)
async def submit(
    model: ModelDep,
    service: ServiceDep,
    caller: InferCaller,
    request: Request,
    header_length: HeaderLength = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accepts the same request as `infer` and answers at once with its job."""
    return _accepted(await _submit(model, service, caller, request, header_length, idempotency_key))


def answer(service: Service, job: Job) -> Response:
    """Returns a finished job's result in the form of an `infer` answer. Raises what JobStore.result raises."""
    tensor = service.jobs.result(job)
    parameters = {
        "key_id": job.key_id,
        "server_seconds": round(job.seconds or 0.0, 6),
        "key_seconds": round(job.key_seconds or 0.0, 6),
        "bootstraps": job.bootstraps_total,
    }
    content, headers = tensors.build_answer(
        job.model, job.model_version, job.request_id, tensor, job.images, parameters
    )
    return Response(content, headers=headers | {"Content-Location": f"/v2/jobs/{job.id}/result"})


async def _submit(
    model: Model,
    service: Service,
    caller: Caller,
    request: Request,
    header_length: str | None,
    idempotency_key: str | None,
) -> Job:
    limit = tensors.MAX_HEADER_BYTES + service.settings.max_batch * (4 + model.upload_bytes)
    data = await body.read(request, limit)
    header, tensor, images = tensors.parse_request(header_length, data)
    if header.id is not None and not (header.id.isascii() and header.id.isprintable()):
        raise MalformedError("id: use printable ASCII characters")
    _check_shape(model.image_shape, header.parameters.image_shape)
    if not 1 <= images <= service.settings.max_batch:
        raise BadShapeError(
            f"the request has {images} images, the limit is 1 to {service.settings.max_batch}: split it"
        )
    if service.draining:
        raise NotReadyError("the server is stopping: send the request again in a few seconds")
    key_id = header.parameters.key_id
    await asyncio.to_thread(service.keys.find, caller.tenant_id, key_id)
    for element in tensors.split_elements(tensor):  # before anything is stored: it might be secret keys
        container.check_kind(container.read_header(element), model.ciphertext_type.kind)
    job_request = JobRequest(
        tenant_id=caller.tenant_id,
        model=model.program.name,
        model_version=model.program.version,
        model_digest=model.program.digest,
        lookups=model.program.lookups,
        key_id=key_id,
        request_id=header.id,
        images=images,
        tensor=tensor,
        body_sha256=hashlib.sha256(model.program.name.encode() + b"\0" + data).hexdigest(),
        idempotency_key=idempotency_key,
        traceparent=service.tracing.current(),
    )
    job = await asyncio.to_thread(service.jobs.submit, job_request)
    service.notifier.notify(QUEUE)
    return job


def _accepted(job: Job, headers: dict[str, str] | None = None) -> Response:
    content = schemas.view(job).model_dump_json()
    return Response(content, 202, {"Location": f"/v2/jobs/{job.id}"} | (headers or {}), "application/json")


async def _finished(service: Service, request: Request, job: Job) -> Job:
    """Waits until a job is finished; cancels it if the client disconnects and has no idempotency key to return with."""
    while job.state not in FINISHED:
        changed = service.notifier.subscribe(job.id)
        job = await asyncio.to_thread(service.jobs.get, job.tenant_id, job.id)
        woken = job.state in FINISHED
        while not woken:
            if service.drained:
                raise NotReadyError(f"the server is stopping; the job is kept: get /v2/jobs/{job.id}/result later")
            if await request.is_disconnected():
                if job.idempotency_key is None:
                    await asyncio.to_thread(service.cancel, job)
                raise CanceledError("the client has disconnected")
            woken = await notified(changed, POLL_SECONDS)
    return job


def _check_shape(wanted: str, given: str) -> None:
    if given != wanted:
        raise BadShapeError(f"the image has shape {given}, the model takes {wanted} (channels x height x width)")
