"""Requests and answers of the Open Inference Protocol v2, as values: nothing here sends or waits."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from he_layers.crypto import params as parameter_sets
from he_layers.crypto.errors import HEServiceError, MalformedError, UnknownKeyError, UnreachableError, from_code
from he_layers.crypto.params import ParameterSet

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One HTTP request."""

    method: str
    path: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelProfile:
    """What the server says of a model."""

    model: str
    version: str
    program_digest: str
    params_id: str
    security_bits: float
    input_shape: tuple[int, int, int]
    input_levels: int
    input_delta: float
    classes: tuple[str, ...]
    turns_to_logits: float
    logit_step: float | None
    bootstraps: int
    key_bytes: int
    upload_bytes: int
    download_bytes: int
    profile: str
    estimated_seconds: float | None

    @classmethod
    def parse(cls, response: httpx.Response) -> ModelProfile:
        """Reads the answer of `/v2/models/{m}/profile`.

        Raises:
            MalformedError: it lacks something, or says something impossible.
        """
        content = _json(response.content)
        try:
            profile = cls(
                **{f.name: content[f.name] for f in fields(cls)}
                | {
                    "input_shape": tuple(int(size) for size in content["input_shape"]),
                    "classes": tuple(str(name) for name in content["classes"]),
                }
            )
            possible = len(profile.input_shape) == 3 and profile.input_levels > 0 and profile.logit_step != 0
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedError(f"the server's model profile is not usable: {error!r}") from error
        if not possible:
            raise MalformedError("the server's model profile holds an impossible shape, level or scale")
        return profile

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
        header = _json(response.content[:split])
        (length,) = _LENGTH.unpack_from(response.content, split)
        logits = response.content[split + _LENGTH.size :]
        answered, seconds = header["id"], float(header["parameters"]["server_seconds"])
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise MalformedError(f"the server's answer does not follow the protocol: {error!r}") from error
    if len(logits) != length:
        raise MalformedError(f"the server's answer promises {length} bytes of logits and brings {len(logits)}")
    if answered != request_id:
        raise MalformedError(f"the server answered request {answered!r}, sent was {request_id!r}")
    return InferAnswer(logits=logits, server_seconds=seconds)


def parse_models(response: httpx.Response) -> list[str]:
    """Returns the names of the served models.

    Raises:
        MalformedError: the answer does not follow the protocol.
    """
    try:
        return [str(model["name"]) for model in _json(response.content)["models"]]
    except (KeyError, TypeError) as error:
        raise MalformedError("the server's list of models does not follow the protocol") from error


def error_of(response: httpx.Response) -> HEServiceError:
    """Returns the typed error that a problem+json answer stands for."""
    if response.request.method == "HEAD":  # an answer to HEAD has no body to carry a code
        return UnknownKeyError("the server lacks these keys") if response.status_code == 404 else _unexplained(response)
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        content = _json(response.content)
        return from_code(str(content.get("code")), str(content.get("detail")))
    if response.status_code in (502, 503, 504):
        return UnreachableError(f"a proxy before the server answered {response.status_code}")
    return _unexplained(response)


def _unexplained(response: httpx.Response) -> HEServiceError:
    return HEServiceError(f"{response.request.url} answered {response.status_code}: is this a ciphershift server?")


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise MalformedError("the server's answer is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedError("the server's answer is not a JSON object")
    return value
