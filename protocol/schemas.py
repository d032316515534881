"""JSON that server and client exchange, as types: what the server fills in and the client reads.

The client does not trust a server, so it reads these through subclasses with bounds of their own (client/_wire.py, client/jobs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import Base64Bytes, BaseModel, Field

JobState = Literal["pending", "in_progress", "completed", "failed", "canceled"]


class LayerProfile(BaseModel):
    """A layer as the progress of a job names it."""

    name: str
    kind: str
    lookups: int


class StemProfile(BaseModel):
    """The public part of a model, which the client computes before it encrypts; its file is at `/v2/models/{name}/stem`."""

    public: str  # where the owner cut the module
    meaning: str  # what that means for the owner
    sha256: str
    bytes: int
    input_shape: tuple[int, ...]  # of a raw sample
    low: tuple[float, ...]  # of the output's range, for each channel or one for all
    high: tuple[float, ...]
    most_outside: float  # share of a sample's values that may lie outside the range


class InputEncoding(BaseModel):
    """How raw values become integers; protocol.encoding.Encoding says what the members mean."""

    origin: tuple[float, ...]
    step: tuple[float, ...]
    lowest: tuple[int, ...]
    names: tuple[str, ...] = ()
    pixels: bool = False


class OutputProfile(BaseModel):
    """One of several outputs, or an output that is no vector; protocol.outputs.Part says what the members mean."""

    name: str
    shape: tuple[int, ...]
    factor: float
    function: Literal["softmax", "log_softmax", "sigmoid"] | None = None


class ModelProfile(BaseModel):
    """What a client needs to make keys, encode an image and read the answer."""

    model: str
    version: str
    program_digest: str  # every answer is bound to it
    profile: str
    params_id: str
    security_bits: float
    input_shape: tuple[int, ...]  # (C, H, W), (C, L) or (features,) of what is encrypted
    input_levels: int
    input_delta: float
    input_encoding: InputEncoding | None = None  # None: pixels from 0 to 1; absent from older servers
    input_sequences: bool = False  # whether shorter ones are padded (protocol.sequences); absent from older servers
    classes: tuple[str, ...]  # names of the values, those of all outputs one after the other
    outputs: tuple[OutputProfile, ...] | None = None  # None: one vector of logits; absent from older servers
    turns_to_logits: float
    logit_step: float | None
    output_function: Literal["softmax", "log_softmax", "sigmoid"] | None = (
        None  # what the module ends in; absent from older servers
    )
    output_refinement: int | None = (
        None  # of values that are answered twice (protocol.scaling.refined); absent from older servers
    )
    bootstraps: int
    layers: tuple[LayerProfile, ...]
    key_bytes: int
    upload_bytes: int
    download_bytes: int
    max_batch: int
    stem: StemProfile | None = None


class InputExample(BaseModel):
    """An input to try a model with, uint8 or raw numbers in the order of its shape, and its class if that is known."""

    name: str
    label: str = ""
    values: Base64Bytes | tuple[float, ...]


class RecommendedQuota(BaseModel):
    """Answers in all, by `ciphershift bench extraction`, after which the best copy still agrees on less than a share of the inputs."""

    answers: int = Field(ge=0)
    agreement: float = Field(gt=0, le=1)


class ModelInputs(BaseModel):
    """What people who make inputs of a model may want to know; a model's folder has it as inputs.json, if it has it."""

    images: Literal["drawing", "photograph"] | None = None  # how images of another size are made to fit
    examples: tuple[InputExample, ...] = Field((), max_length=100)


class JobProgress(BaseModel):
    """How far a job has come."""

    layer: str | None
    bootstraps_done: int
    bootstraps_total: int
    images_done: int
    eta_seconds: float | None


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class JobView(BaseModel):
    """A job."""

    id: str
    model: str
    model_version: str
    state: JobState
    images: int
    created: datetime
    started: datetime | None
    finished: datetime | None
    expires: datetime | None
    progress: JobProgress
    queue_position: int | None
    error: JobError | None


class JobList(BaseModel):
    """A tenant's jobs, newest first."""

    jobs: Sequence[JobView]
