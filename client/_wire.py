"""Requests and answers of the Open Inference Protocol v2, as values: nothing here sends or waits.

What a server says is shown to people, on terminals, so its texts are cut to printable characters and to a length.
"""

from __future__ import annotations

import json
import math
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ciphershift.client._requests import IDEMPOTENCY_KEY, Call
from ciphershift.errors import CiphershiftError, MalformedError, UnreachableError, from_code
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto.params import ParameterSet

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")
_MAX_TEXT = 1000  # letters

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=65535)]


def printable(text: str) -> str:
    """Returns a server's text as it may be shown: without control characters, and not endless."""
    shown = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)


Text = Annotated[str, AfterValidator(printable)]
Name = Annotated[str, Field(max_length=128), AfterValidator(printable)]


class Message(BaseModel):
    """What a server says: members that we do not know are ignored, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


M = TypeVar("M", bound=Message)


class LayerProfile(Message):
    """A layer as the progress of a job names it."""

    name: Name
    kind: Name
    lookups: int = Field(ge=0)


class ModelProfile(Message):
    """What the server says of a model, checked: nothing in it may make the client fail later, or write odd things to a terminal."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]  # it becomes part of addresses
    version: Name
    profile: Name
    program_digest: Digest
    params_id: Digest
    security_bits: float
    input_shape: tuple[Side, Side, Side]
    input_levels: int = Field(ge=1, le=255)
    input_delta: float = Field(gt=0, lt=0.5)
    classes: tuple[Name, ...] = Field(min_length=1, max_length=1024)
    turns_to_logits: float
    logit_step: Annotated[float, Field(gt=0)] | None
    bootstraps: int = Field(ge=0)
    layers: Annotated[tuple[LayerProfile, ...], Field(max_length=4096)] = ()  # servers of before do not say
    key_bytes: int = Field(ge=0)
    upload_bytes: int = Field(ge=0)
    download_bytes: PositiveInt
    max_batch: PositiveInt
    estimated_seconds: float | None

    def logits(self, turns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decrypted torus values as logits; in the exact profile the whole multiples that they are."""
        logits = turns * self.turns_to_logits
        return logits if self.logit_step is None else np.rint(logits / self.logit_step) * self.logit_step

    @property
    def params(self) -> ParameterSet:
        """The parameter set, from this installation's own registry and never from the server."""
        return parameter_sets.get(self.params_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class InferAnswer:
    """Encrypted rows of logits, one per image, and what the server says of their making."""

    logits: tuple[bytes, ...]
    server_seconds: float


def read(kind: type[M], content: bytes) -> M:
    """Reads one JSON object.

    Raises:
        MalformedError: it lacks something, or says something impossible.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise MalformedError(f"the server's {kind.__name__} is not usable: {place}: {first['msg']}") from None


def submit_call(profile: ModelProfile, key_id: str, images: Sequence[bytes]) -> tuple[str, Call]:
    """Returns a fresh request id and the request that makes a job of encrypted images; sent again, it is the same job."""
    request_id = uuid.uuid4().hex
    data = b"".join(_LENGTH.pack(len(image)) + image for image in images)
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(data)},
    }
    shape = "x".join(str(size) for size in profile.input_shape)
    header = {
        "id": request_id,
        "parameters": {"key_id": key_id, "image_shape": shape, "binary_data_output": True},
        "inputs": [tensor],
    }
    text = json.dumps(header).encode()
    return request_id, Call(
        method="POST",
        path=f"/v2/models/{profile.model}/jobs",
        content=text + data,
        headers={
            HEADER_LENGTH: str(len(text)),
            "Content-Type": "application/octet-stream",
            IDEMPOTENCY_KEY: request_id,
        },
    )


def parse_answer(response: httpx.Response, request_id: str, images: int) -> InferAnswer:
    """Reads the result of a job.

    Raises:
        MalformedError: it does not follow the protocol, or answers another request.
    """
    content = response.content
    try:
        split = int(response.headers[HEADER_LENGTH])
        if not 0 <= split <= len(content):
            raise ValueError(f"{HEADER_LENGTH} is {split}")
        header = _json(content[:split])
        answered, seconds = header["id"], float(header["parameters"]["server_seconds"])
        if not 0 <= seconds < math.inf:
            raise ValueError(f"server_seconds is {seconds}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"the server's answer does not follow the protocol: {printable(repr(error))}") from error
    if answered != request_id:
        raise MalformedError(f"the server answered request {printable(repr(answered))}, sent was {request_id!r}")
    logits = tuple(_elements(content, split))
    if len(logits) != images:
        raise MalformedError(f"the server's answer holds {len(logits)} rows of logits, {images} images were sent")
    return InferAnswer(logits=logits, server_seconds=seconds)


def _elements(content: bytes, position: int) -> list[bytes]:
    elements = []
    while position < len(content):
        try:
            (length,) = _LENGTH.unpack_from(content, position)
        except struct.error:
            raise MalformedError("the server's answer ends inside the length of a row") from None
        position += _LENGTH.size + length
        if position > len(content):
            raise MalformedError(f"the server's answer promises {length} bytes of a row and brings fewer")
        elements.append(content[position - length : position])
    return elements


def parse_models(response: httpx.Response) -> list[str]:
    """Returns the names of the served models.

    Raises:
        MalformedError: the answer does not follow the protocol.
    """
    try:
        return [printable(str(model["name"])) for model in _json(response.content)["models"]]
    except (KeyError, TypeError) as error:
        raise MalformedError("the server's list of models does not follow the protocol") from error


def error_of(response: httpx.Response) -> CiphershiftError:
    """Returns the typed error that a problem+json answer stands for."""
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        content = _json(response.content)
        return from_code(str(content.get("code")), printable(str(content.get("detail"))))
    if response.status_code in (502, 503, 504):
        return UnreachableError(f"a proxy before the server answered {response.status_code}")
    return CiphershiftError(f"{response.request.url} answered {response.status_code}: is this a ciphershift server?")


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the server's answer is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedError("the server's answer is not a JSON object")
    return value
