"""The caller's jobs: state, progress, result, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ciphershift.protocol.schemas import JobList, JobView
from ciphershift.server.api import schemas
from ciphershift.server.api.deps import InferCaller, JobDep, ServiceDep
from ciphershift.server.api.routes.infer import BINARY_ANSWER, POLL_SECONDS, answer
from ciphershift.server.notifier import notified
from ciphershift.server.service import Service
from ciphershift.server.store.database import Job
from ciphershift.server.store.jobs import FINISHED, PENDING

router = APIRouter(prefix="/v2/jobs", tags=["jobs"])


def _view(service: Service, job: Job) -> JobView:
    return schemas.view(job, service.jobs.ahead(job) if job.state == PENDING else None)


@router.get("")
def list_jobs(service: ServiceDep, caller: InferCaller, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> JobList:
    """The caller's jobs, newest first."""
    return JobList(jobs=[_view(service, job) for job in service.jobs.newest(caller.tenant_id, limit)])


@router.get("/{job_id}")
def read_job(job: JobDep, service: ServiceDep) -> JobView:
    """State and progress of a job."""
    return _view(service, job)


@router.get("/{job_id}/result", response_class=Response, responses=BINARY_ANSWER)
def read_result(job: JobDep, service: ServiceDep) -> Response:
    """The result, in the form of an `infer` answer."""
    return answer(service, job)


@router.delete("/{job_id}")
def cancel_job(job: JobDep, service: ServiceDep) -> JobView:
    """Cancels an unfinished job; deletes the result of a finished one."""
    return _view(service, service.jobs.cancel(job.tenant_id, job.id))


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    job: JobDep, service: ServiceDep, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events until the job is finished. Each event has the whole job, so a missed one does no harm."""
    seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() else -1
    while True:
        changed = service.notifier.subscribe(job.id)
        job = await asyncio.to_thread(service.jobs.get, job.tenant_id, job.id)
        finished = job.state in FINISHED
        if finished or job.revision > seen:
            seen = job.revision
            yield ServerSentEvent(
                event=job.state if finished else "progress",
                id=str(seen),
                data=await asyncio.to_thread(_view, service, job),
            )
        if finished:
            return
        while not await notified(changed, POLL_SECONDS):
            if service.drained:
                return
