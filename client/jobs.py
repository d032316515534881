"""Jobs as the client knows them: what the server says of one, and what must be remembered to read its answer."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from ciphershift.client._wire import Digest, Message, ModelProfile, Text, read
from ciphershift.errors import CiphershiftError, UnknownJobError, from_code

KEPT_SECONDS = 30 * 86400.0  # longer than any server keeps an answer

JobId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]  # it becomes part of addresses and of a file's name


def job_path(job_id: str) -> str:
    """Returns where a job is on its server.

    Raises:
        UnknownJobError: no job can have this id.
    """
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", job_id):
        raise UnknownJobError(f"{job_id!r} is not the id of a job: `ciphershift jobs list` shows them")
    return f"/v2/jobs/{job_id}"


class JobProgress(Message):
    """How far a job has come."""

    layer: Text | None = None
    bootstraps_done: NonNegativeInt
    bootstraps_total: NonNegativeInt
    images_done: NonNegativeInt = 0
    eta_seconds: NonNegativeFloat | None = None


class JobError(Message):
    """Why a job failed."""

    code: Text
    detail: Text


class JobStatus(Message):
    """What the server says of a job."""

    id: JobId
    model: Text
    model_version: Text
    state: Literal["pending", "in_progress", "completed", "failed", "canceled"]
    images: NonNegativeInt
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    expires: datetime | None = None
    progress: JobProgress
    queue_position: NonNegativeInt | None = None
    error: JobError | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("completed", "failed", "canceled")

    def failure(self) -> CiphershiftError:
        """Returns the typed error of a job that failed."""
        error = self.error or JobError(code=CiphershiftError.code, detail=f"job {self.id} failed without a reason")
        return from_code(error.code, error.detail)


class JobList(Message):
    """The answer of `/v2/jobs`."""

    jobs: Sequence[JobStatus]


class Receipt(Message):
    """What a client keeps of a job that it has submitted. No secret: without the secret keys it reads nothing."""

    job_id: JobId
    request_id: str
    key_id: Digest
    profile: ModelProfile
    requests: tuple[Digest, ...]  # what the answer to each image is bound to


class Receipts:
    """The receipts in one folder, a file each, so that a later process can fetch what an earlier one has asked for."""

    def __init__(self, folder: Path) -> None:
        """Takes note of a folder, which is made when there is something to keep."""
        self._folder = folder

    def keep(self, receipt: Receipt) -> None:
        """Writes a receipt, and removes those of long ago."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._folder.iterdir():
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink(missing_ok=True)
        path = self._path(receipt.job_id)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(receipt.model_dump_json())
        temporary.replace(path)

    def find(self, job_id: str) -> Receipt:
        """Returns the receipt of a job.

        Raises:
            UnknownJobError: the job was submitted by another user, or from another machine.
            MalformedError: its file is damaged.
        """
        job_path(job_id)  # else it would be no name for a file either
        try:
            return read(Receipt, self._path(job_id).read_bytes())
        except FileNotFoundError:
            raise UnknownJobError(
                f"job {job_id} was not submitted from {self._folder.parent}: only who submitted it can read its answer"
            ) from None

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"
