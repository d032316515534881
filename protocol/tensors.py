"""Tensors on the wire: the binary tensor data extension of the Open Inference Protocol v2.

A body is `Inference-Header-Content-Length` bytes of JSON, then the tensor's bytes, `binary_data_size` of them. An element of a BYTES
tensor is a little-endian u32 length and that many bytes. Here each element is one container (protocol/container.py), which this
module does not open. Client and server both use it: what one builds, the other parses.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ciphershift.errors import BadShapeError, MalformedError

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_HEADER_BYTES = 16 << 10
LENGTH_BYTES = 4
_LENGTH = struct.Struct("<I")


class TensorParameters(BaseModel):
    """Parameters of one input tensor."""

    binary_data_size: int = Field(ge=0)


class InputTensor(BaseModel):
    """The only input: a list of encrypted images."""

    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: tuple[int]
    parameters: TensorParameters


class InferParameters(BaseModel):
    """Parameters of a request."""

    key_id: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the evaluation keys' payload")
    image_shape: str = Field(
        pattern="^[0-9]{1,5}(x[0-9]{1,5}){0,2}$", description="channels x height x width, channels x length, or length"
    )


class InferRequest(BaseModel):
    """The JSON header of a request; unknown members are ignored."""

    id: str | None = Field(None, max_length=64)
    parameters: InferParameters
    inputs: tuple[InputTensor]


def join_elements(elements: Sequence[bytes]) -> bytes:
    """Returns the bytes of a BYTES tensor of these elements."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def split_elements(data: bytes) -> list[bytes]:
    """Returns the elements of a BYTES tensor.

    Raises:
        MalformedError: the bytes end within an element.
    """
    elements = []
    position = 0
    while position < len(data):
        if position + _LENGTH.size > len(data):
            raise MalformedError("the tensor ends inside the length of an element")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if position + length > len(data):
            raise MalformedError(f"an element has {length} bytes, only {len(data) - position} follow")
        elements.append(data[position : position + length])
        position += length
    return elements


def join_body(header: Mapping[str, Any], tensor: bytes) -> tuple[bytes, dict[str, str]]:
    """Returns body and HTTP headers of a JSON header with a tensor behind it."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + tensor, {HEADER_LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}


def split_body(header_length: str | None, body: bytes) -> tuple[bytes, bytes]:
    """Returns the JSON header and the tensor of a body.

    Args:
        header_length: value of the HTTP header `Inference-Header-Content-Length`, None if there is none.
        body: the whole body.

    Raises:
        MalformedError: the length is missing, no number, above MAX_HEADER_BYTES or beyond the body.
    """
    if header_length is None or not header_length.isdecimal() or len(header_length) > len(str(MAX_HEADER_BYTES)):
        raise MalformedError(f"send the length of the JSON header in {HEADER_LENGTH}; tensors must be binary")
    split = int(header_length)
    if split > min(MAX_HEADER_BYTES, len(body)):
        raise MalformedError(
            f"{HEADER_LENGTH} is {split}; the body has {len(body)} bytes, the limit is {MAX_HEADER_BYTES}"
        )
    return body[:split], body[split:]


def build_request(
    images: Sequence[bytes], *, key_id: str, image_shape: Sequence[int], request_id: str | None = None
) -> tuple[bytes, dict[str, str]]:
    """Returns body and HTTP headers of an inference request.

    Args:
        images: one container per encrypted image.
        key_id: SHA-256 of the evaluation keys' payload, in hex.
        image_shape: channels, height and width of images; channels and length of series; or the length of vectors.
        request_id: comes back with the answer.
    """
    tensor = join_elements(images)
    header: dict[str, Any] = {
        "parameters": {
            "key_id": key_id,
            "image_shape": "x".join(str(size) for size in image_shape),
            "binary_data_output": True,
        },
        "inputs": [_description("image", len(images), tensor)],
    }
    if request_id is not None:
        header["id"] = request_id
    return join_body(header, tensor)


def parse_request(header_length: str | None, body: bytes) -> tuple[InferRequest, bytes, int]:
    """Splits a body into its header, the tensor of encrypted images, and their number.

    Raises:
        MalformedError: the body does not follow the extension.
        BadShapeError: the tensor does not hold as many images as its shape says.
    """
    text, tensor = split_body(header_length, body)
    try:
        request = InferRequest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "header"
        raise MalformedError(f"{place}: {first['msg']}") from error
    (described,) = request.inputs
    if described.parameters.binary_data_size != len(tensor):
        raise MalformedError(f"binary_data_size is {described.parameters.binary_data_size}, {len(tensor)} bytes follow")
    images = len(split_elements(tensor))
    if described.shape != (images,):
        raise BadShapeError(f"the tensor has shape {list(described.shape)}, its bytes hold {images} images")
    return request, tensor, images


def build_answer(
    model: str, version: str, request_id: str | None, tensor: bytes, images: int, parameters: dict[str, Any]
) -> tuple[bytes, dict[str, str]]:
    """Returns body and HTTP headers of an answer that carries a tensor with one container per image."""
    header: dict[str, Any] = {
        "model_name": model,
        "model_version": version,
        "parameters": parameters,
        "outputs": [_description("logits", images, tensor)],
    }
    if request_id is not None:
        header["id"] = request_id
    return join_body(header, tensor)


def _description(name: str, elements: int, tensor: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": "BYTES",
        "shape": [elements],
        "parameters": {"binary_data_size": len(tensor)},
    }
