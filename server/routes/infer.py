"""Inference on encrypted images, by the binary tensor data extension."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from he_layers.crypto.errors import BadShapeError
from server import body, tensors
from server.service import ModelDep, ServiceDep

router = APIRouter(prefix="/models", tags=["inference"])


@router.post("/{name}/infer")
async def infer(
    model: ModelDep,
    service: ServiceDep,
    request: Request,
    inference_header_content_length: Annotated[str | None, Header()] = None,
) -> Response:
    """Evaluates the model on each encrypted image and answers with as many encrypted rows of logits."""
    limit = tensors.MAX_HEADER_BYTES + service.settings.max_batch * (4 + model.upload_bytes)
    data = await body.read(request, limit)
    header, images = tensors.parse_request(inference_header_content_length, data)
    _check_shape(model.image_shape, header.parameters.image_shape)
    if not 1 <= len(images) <= service.settings.max_batch:
        raise BadShapeError(
            f"the request has {len(images)} images, one request takes 1 to {service.settings.max_batch}"
        )
    key_id = header.parameters.key_id
    answer = await service.engine.infer(model.program.name, key_id, service.keys.find(key_id), images)
    parameters = {
        "key_id": key_id,
        "params_id": model.params.id,
        "server_seconds": round(answer.seconds, 6),
        "key_seconds": round(answer.key_seconds, 6),
        "bootstraps": answer.bootstraps,
    }
    content, headers = tensors.build_answer(
        model.program.name, model.program.version, header.id, answer.logits, parameters
    )
    return Response(content, headers=headers)


def _check_shape(wanted: str, given: str) -> None:
    if given != wanted:
        raise BadShapeError(f"the image has shape {given}, the model takes {wanted} (channels x height x width)")
