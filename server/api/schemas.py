"""Jobs as the API shows them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from ciphershift.protocol.schemas import JobError, JobProgress, JobView
from ciphershift.server.store.database import Job
from ciphershift.server.store.states import IN_PROGRESS


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
        started=_optional_time(job.started),
        finished=_optional_time(job.finished),
        expires=_optional_time(job.expires),
        progress=JobProgress(
            layer=job.layer,
            bootstraps_done=job.bootstraps_done,
            bootstraps_total=job.bootstraps_total,
            images_done=job.images_done,
            eta_seconds=None if expected is None else round(max(expected - time.time(), 0.0), 1),
        ),
        queue_position=ahead,
        error=JobError(code=job.error_code, detail=job.error_detail or "") if job.error_code else None,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def _optional_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
