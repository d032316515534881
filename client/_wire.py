"""What a server says, read without trusting it: profile, answer, errors.

The types are those of protocol/schemas.py with bounds of their own. Texts are shown on terminals, so they are cut to printable characters
and to a length.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ciphershift.errors import (
    CiphershiftError,
    ConfigurationError,
    MalformedError,
    TooLargeError,
    UnreachableError,
    from_code,
)
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto.ciphertexts import PackedAnswer, ciphertext_type
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.stem import MAX_BYTES
from ciphershift.protocol import scaling, schemas, tensors
from ciphershift.protocol.encoding import Encoding
from ciphershift.protocol.outputs import OUTPUTS, separated, slices

_MAX_TEXT = 1000  # characters

Prediction: TypeAlias = Any
"""float64 [n, classes]; of a model with several outputs a dict of float64 [n, ...] by name. Any, since only the profile tells which."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Factor = Annotated[float, Field(ge=1e-12, le=1e12)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]


def printable(text: str) -> str:
    """Returns a server's text fit for a terminal: without control characters, and of limited length."""
    shown = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)


Text = Annotated[str, AfterValidator(printable)]
Name = Annotated[str, Field(max_length=128), AfterValidator(printable)]


class Message(BaseModel):
    """A JSON object from a server: unknown members are ignored, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


M = TypeVar("M", bound=Message)


class LayerProfile(Message, schemas.LayerProfile):
    """A layer as the progress of a job names it."""

    name: Name
    kind: Name
    lookups: Count


class StemProfile(Message, schemas.StemProfile):
    """What the server says of a model's public part, checked; the file itself is checked when it is here (he_layers.stem)."""

    public: Text
    meaning: Text
    sha256: Digest
    bytes: int = Field(ge=1, le=MAX_BYTES)
    input_shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=3)]
    low: tuple[float, ...] = Field(min_length=1, max_length=65535)
    high: tuple[float, ...] = Field(min_length=1, max_length=65535)
    most_outside: float = Field(ge=0, le=1)


class InputEncoding(Message, schemas.InputEncoding):
    """How raw values become integers, within bounds."""

    origin: Annotated[tuple[float, ...], Field(min_length=1, max_length=65535)]
    step: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=65535)]
    lowest: Annotated[tuple[Annotated[int, Field(ge=-255, le=0)], ...], Field(min_length=1, max_length=65535)]
    names: Annotated[tuple[Name, ...], Field(max_length=65535)] = ()


class OutputProfile(Message, schemas.OutputProfile):
    """One of several outputs, within bounds."""

    name: Name
    shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=3)]
    factor: Factor


class ModelProfile(Message, schemas.ModelProfile):
    """What the server says of a model, checked, so that nothing in it makes the client fail later."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]  # becomes part of URLs
    version: Name
    profile: Name
    program_digest: Digest
    params_id: Digest
    security_bits: float = Field(ge=0, le=1e4)
    input_shape: Annotated[tuple[Side, ...], Field(min_length=1, max_length=3)]  # (C, H, W), (C, L) or (features,)
    input_levels: int = Field(ge=1, le=255)
    input_delta: float = Field(gt=0, lt=0.5)
    input_encoding: InputEncoding | None = None
    classes: tuple[Name, ...] = Field(min_length=1, max_length=1024)
    outputs: Annotated[tuple[OutputProfile, ...], Field(min_length=1, max_length=1024)] | None = None
    turns_to_logits: Factor
    logit_step: Factor | None
    output_refinement: Annotated[int, Field(ge=2, le=scaling.MOST_REFINEMENT)] | None = None
    bootstraps: Count
    layers: Annotated[tuple[LayerProfile, ...], Field(max_length=4096)] = ()  # absent from older servers
    key_bytes: Count
    upload_bytes: Count
    download_bytes: Count
    max_batch: int = Field(ge=1, le=1 << 20)
    stem: StemProfile | None = None

    def logits(self, turns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Converts decrypted torus values [..., answer_values] to logits; in the exact profile to whole multiples of `logit_step`."""
        logits = scaling.to_logits(turns, self.turns_to_logits, self.logit_step, self.output_refinement)
        for part, place in slices(self.outputs or ()):
            logits[..., place] *= part.factor
        return logits

    def named(self, logits: NDArray[np.float64]) -> Prediction:
        """Logits [n, classes] as the module returns them: those of several outputs by name."""
        return logits if self.outputs is None else separated(self.outputs, logits)

    def probabilities(self, logits: NDArray[np.float64]) -> Prediction:
        """What the module makes of its logits [n, classes] at its end. Raises ConfigurationError if it gives the logits themselves."""
        ends = [self.output_function] if self.outputs is None else [part.function for part in self.outputs]
        if not any(ends):
            raise ConfigurationError(
                f"{self.model} ends in logits, without softmax or sigmoid: take predict, and apply your own"
            )
        if self.outputs is None:
            return OUTPUTS[str(self.output_function)](logits)
        given = logits.copy()
        for part, place in slices(self.outputs):
            if part.function:
                given[:, place] = OUTPUTS[part.function](logits[:, place])
        return self.named(given)

    @property
    def encoding(self) -> Encoding | None:
        """How raw values become integers; None for pixels from 0 to 1."""
        return None if self.input_encoding is None else Encoding(**self.input_encoding.model_dump())

    @property
    def params(self) -> ParameterSet:
        """The parameter set, from this installation's own registry and never from the server."""
        return parameter_sets.get(self.params_id)

    @property
    def answer_values(self) -> int:
        """Values of an answer: one for each class, or two where they are refined."""
        return scaling.answer_values(len(self.classes), self.output_refinement)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of what the user gives: the public part's input, or without one what is encrypted."""
        return self.stem.input_shape if self.stem else self.input_shape

    def require_consistent(self) -> None:
        """Compares the sizes that the server names with those that follow from parameters, shape and classes.

        Raises:
            UnknownParamsError: the parameter set is not in this installation's registry.
            MalformedError: a size differs.
        """
        params, pixels = self.params, math.prod(self.input_shape)
        if self.input_encoding is not None:
            lengths = {
                len(v) for v in (self.input_encoding.origin, self.input_encoding.step, self.input_encoding.lowest)
            }
            if lengths != {self.input_shape[0]} or len(self.input_encoding.names) not in (0, self.input_shape[0]):
                raise MalformedError(
                    f"the profile of {self.model} encodes {sorted(lengths)} features, its input has {self.input_shape[0]}"
                )
        if self.input_sequences and (len(self.input_shape) != 2 or self.input_shape[0] < 2 or self.stem):
            raise MalformedError(f"the profile of {self.model} says sequences, of which its input can be none")
        if self.outputs is not None and sum(math.prod(part.shape) for part in self.outputs) != len(self.classes):
            raise MalformedError(
                f"the profile of {self.model} has outputs of {[part.shape for part in self.outputs]}, and {len(self.classes)} classes"
            )
        if self.outputs is not None and len({part.name for part in self.outputs}) != len(self.outputs):
            raise MalformedError(f"the profile of {self.model} has two outputs of one name")
        if self.output_refinement and self.bootstraps:
            raise MalformedError(f"the profile of {self.model} refines answers, which have look-ups behind them")
        sizes = {
            "key_bytes": EvaluationKeys.nbytes(params),
            "upload_bytes": ciphertext_type(self.bootstraps).nbytes(params, pixels),
            "download_bytes": PackedAnswer.nbytes(params, self.answer_values),
        }
        for name, size in sizes.items():
            if getattr(self, name) != size:
                raise MalformedError(
                    f"the profile of {self.model} says {name} = {getattr(self, name)}; with {params.name}, {pixels} pixels "
                    f"and {self.answer_values} values it is {size}"
                )


class ModelName(Message):
    """One entry of the list of models."""

    name: Name


class ModelList(Message):
    """The answer of `/v2/models`."""

    models: Annotated[tuple[ModelName, ...], Field(max_length=4096)]


@dataclass(frozen=True, kw_only=True, slots=True)
class InferAnswer:
    """Encrypted rows of logits, one per image, and the seconds that the server spent on them."""

    logits: tuple[bytes, ...]
    server_seconds: float


def read(kind: type[M], content: bytes) -> M:
    """Parses one JSON object.

    Raises:
        MalformedError: a member is missing or out of bounds.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise MalformedError(f"the server's {kind.__name__} is not usable: {place}: {first['msg']}") from None


def parse_answer(response: httpx.Response, request_id: str, images: int) -> InferAnswer:
    """Parses the result of a job.

    Raises:
        MalformedError: it does not follow the protocol, or answers another request.
    """
    text, tensor = tensors.split_body(response.headers.get(tensors.HEADER_LENGTH), response.content)
    header = _json(text)
    try:
        answered, seconds = header["id"], float(header["parameters"]["server_seconds"])
        if not 0 <= seconds <= 1e9:
            raise ValueError(f"server_seconds is {seconds}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"the server's answer does not follow the protocol: {printable(repr(error))}") from error
    if answered != request_id:
        raise MalformedError(f"the server answered request {printable(repr(answered))}, sent was {request_id!r}")
    logits = tuple(tensors.split_elements(tensor))
    if len(logits) != images:
        raise MalformedError(f"the server's answer holds {len(logits)} rows of logits, {images} images were sent")
    return InferAnswer(logits=logits, server_seconds=seconds)


def parse_models(response: httpx.Response) -> list[str]:
    """Returns the names of the served models.

    Raises:
        MalformedError: the answer does not follow the protocol.
    """
    return [model.name for model in read(ModelList, response.content).models]


def error_of(response: httpx.Response) -> CiphershiftError:
    """Returns the typed error of a problem+json answer."""
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        content = _json(response.content)
        return from_code(str(content.get("code")), printable(str(content.get("detail"))))
    if response.status_code == TooLargeError.http_status:
        return TooLargeError(
            f"a proxy before the server refuses {response.request.headers.get('Content-Length', 'so many')} bytes: raise its limit "
            "(nginx: client_max_body_size 256m; deploy/proxies has examples)"
        )
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
