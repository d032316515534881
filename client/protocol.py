"""Requests and answers of the Open Inference Protocol v2, as values: nothing here sends or waits."""

from __future__ import annotations

import json
import math
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from he_layers.crypto import params as parameter_sets
from he_layers.crypto.errors import HEServiceError, MalformedError, UnknownKeyError, UnreachableError, from_code
from he_layers.crypto.params import ParameterSet

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_WORDS = 1000  # letters of a server's text that the client shows
_LENGTH = struct.Struct("<I")

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class ModelProfile(BaseModel):
    """What the server says of a model, checked: nothing in it may make the client fail later, or write odd things to a terminal."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    model: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    version: str = Field(max_length=128)
    program_digest: Digest
    params_id: Digest
    security_bits: float
    input_shape: tuple[Side, Side, Side]
    input_levels: int = Field(ge=1, le=255)
    input_delta: float = Field(gt=0, lt=0.5)
    classes: tuple[Annotated[str, Field(max_length=128)], ...] = Field(min_length=1, max_length=1024)
    turns_to_logits: float
    logit_step: float | None = Field(gt=0)
    bootstraps: int = Field(ge=0)
    key_bytes: int = Field(ge=0)
    upload_bytes: int = Field(ge=0)
    download_bytes: int = Field(ge=0)
    profile: str = Field(max_length=128)
    estimated_seconds: float | None

    @field_validator("classes", "version", "profile")
    @classmethod
    def _printable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return _plain(value) if isinstance(value, str) else tuple(map(_plain, value))

    @classmethod
    def parse(cls, response: httpx.Response) -> ModelProfile:
        """Reads the answer of `/v2/models/{m}/profile`.

        Raises:
            MalformedError: it lacks something, or says something impossible.
        """
        try:
            return cls.model_validate(_json(response.content))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise MalformedError(f"the server's model profile is not usable: {place}: {first['msg']}") from error

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
    """An encrypted row of logits and what the server says of its making."""

    logits: bytes
    server_seconds: float


def infer_call(profile: ModelProfile, key_id: str, image: bytes) -> tuple[str, Call]:
    """Returns a fresh request id and the request that carries one encrypted image."""
    request_id = uuid.uuid4().hex
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": _LENGTH.size + len(image)},
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
        path=f"/v2/models/{profile.model}/infer",
        content=text + _LENGTH.pack(len(image)) + image,
        headers={HEADER_LENGTH: str(len(text)), "Content-Type": "application/octet-stream"},
    )


def parse_infer(response: httpx.Response, request_id: str) -> InferAnswer:
    """Reads the answer to `infer_call`.

    Raises:
        MalformedError: it does not follow the protocol, or answers another request.
    """
    try:
        split = int(response.headers[HEADER_LENGTH])
        if not 0 <= split <= len(response.content):
            raise ValueError(f"{HEADER_LENGTH} is {split}")
        header = _json(response.content[:split])
        (length,) = _LENGTH.unpack_from(response.content, split)
        logits = response.content[split + _LENGTH.size :]
        answered, seconds = header["id"], float(header["parameters"]["server_seconds"])
        if not 0 <= seconds < math.inf:
            raise ValueError(f"server_seconds is {seconds}")
    except (KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise MalformedError(f"the server's answer does not follow the protocol: {_plain(repr(error))}") from error
    if len(logits) != length:
        raise MalformedError(f"the server's answer promises {length} bytes of logits and brings {len(logits)}")
    if answered != request_id:
        raise MalformedError(f"the server answered request {_plain(repr(answered))}, sent was {request_id!r}")
    return InferAnswer(logits=logits, server_seconds=seconds)


def parse_models(response: httpx.Response) -> list[str]:
    """Returns the names of the served models.

    Raises:
        MalformedError: the answer does not follow the protocol.
    """
    try:
        return [_plain(str(model["name"])) for model in _json(response.content)["models"]]
    except (KeyError, TypeError) as error:
        raise MalformedError("the server's list of models does not follow the protocol") from error


def error_of(response: httpx.Response) -> HEServiceError:
    """Returns the typed error that a problem+json answer stands for."""
    if response.request.method == "HEAD":  # an answer to HEAD has no body to carry a code
        return UnknownKeyError("the server lacks these keys") if response.status_code == 404 else _unexplained(response)
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        content = _json(response.content)
        return from_code(str(content.get("code")), _plain(str(content.get("detail"))))
    if response.status_code in (502, 503, 504):
        return UnreachableError(f"a proxy before the server answered {response.status_code}")
    return _unexplained(response)


def _unexplained(response: httpx.Response) -> HEServiceError:
    return HEServiceError(f"{response.request.url} answered {response.status_code}: is this a ciphershift server?")


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the server's answer is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedError("the server's answer is not a JSON object")
    return value


def _plain(text: str) -> str:
    """A server's words, fit for a terminal: printable and not endless."""
    shown = text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)
