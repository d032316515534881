"""Jobs as the API shows them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from ciphershift.server.store.database import Job
from ciphershift.server.store.states import IN_PROGRESS


class Progress(BaseModel):
    """How far a job is."""

    layer: str | None
    bootstraps_done: int
    bootstraps_total: int
    images_done: int
    eta_seconds: float | None


class Problem(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class JobView(BaseModel):
    """A job."""

    id: str
    model: str
    model_version: str
    state: Literal["pending", "in_progress", "completed", "failed", "canceled"]
    images: int
    created: datetime
    started: datetime | None
    finished: datetime | None
    expires: datetime | None
    progress: Progress
    queue_position: int | None
    error: Problem | None


class JobList(BaseModel):
    """A tenant's jobs, newest first."""

    jobs: list[JobView]


def view(job: Job, ahead: int | None = None) -> JobView:
    """Returns what the API shows of a job.

    Args:
        job: its row.
        ahead: jobs that wait before it, if it waits.
    """
    expected = job.ready_at if job.state == IN_PROGRESS else None
    return JobView(
        id=job.id,
        model=job.model,
        model_version=job.model_version,
        state=job.state,
        images=job.images,
        created=_time(job.created),
        started=_time(job.started),
        finished=_time(job.finished),
        expires=_time(job.expires),
        progress=Progress(
            layer=job.layer,
            bootstraps_done=job.bootstraps_done,
            bootstraps_total=job.bootstraps_total,
            images_done=job.images_done,
            eta_seconds=None if expected is None else round(max(expected - time.time(), 0.0), 1),
        ),
        queue_position=ahead,
        error=Problem(code=job.error_code, detail=job.error_detail or "") if job.error_code else None,
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(round(seconds, 3), UTC)
