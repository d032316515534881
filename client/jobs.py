"""Jobs as the server reports them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

from ciphershift.client._wire import Count, Message, Seconds, Text
from ciphershift.errors import CiphershiftError, UnknownJobError, from_code
from ciphershift.protocol import schemas


def _in_our_time(moment: datetime) -> datetime:
    if not 2000 <= moment.year < 2200:  # others may be beyond what a local clock can show
        raise ValueError("the year is not between 2000 and 2199")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_our_time)]
JobId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]  # becomes part of URLs and of a file's name


def job_path(job_id: str) -> str:
    """Returns the path of a job on its server.

    Raises:
        UnknownJobError: no job can have this id.
    """
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", job_id):
        raise UnknownJobError(f"{job_id!r} is not the id of a job: `ciphershift jobs list` shows them")
    return f"/v2/jobs/{job_id}"


class JobProgress(Message, schemas.JobProgress):
    """How far a job has come."""

    layer: Text | None = None
    bootstraps_done: Count
    bootstraps_total: Count
    images_done: Count = 0
    eta_seconds: Seconds | None = None


class JobError(Message, schemas.JobError):
    """Why a job failed."""

    code: Text
    detail: Text


class JobStatus(Message, schemas.JobView):
    """What the server says of a job."""

    id: JobId
    model: Text
    model_version: Text
    images: Count
    created: Moment
    started: Moment | None = None
    finished: Moment | None = None
    expires: Moment | None = None
    progress: JobProgress
    queue_position: Count | None = None
    error: JobError | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the job is completed, failed or canceled."""
        return self.state in ("completed", "failed", "canceled")

    def failure(self) -> CiphershiftError:
        """Returns the typed error of a failed job."""
        error = self.error or JobError(code=CiphershiftError.code, detail=f"job {self.id} failed without a reason")
        return from_code(error.code, error.detail)


class JobList(Message, schemas.JobList):
    """The answer of `/v2/jobs`."""

    jobs: Sequence[JobStatus]
