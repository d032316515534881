"""Jobs of the caller: how far they are, what came out, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ciphershift.protocol.schemas import JobList, JobView
from ciphershift.server.api import schemas
from ciphershift.server.api.routes.infer import BINARY_ANSWER, LOOK_SECONDS, answer
from ciphershift.server.notifier import ringing
from ciphershift.server.service import InferCaller, JobDep, Service, ServiceDep
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
    """The answer that `infer` would have given."""
    return answer(service, job)


@router.delete("/{job_id}")
def cancel_job(job: JobDep, service: ServiceDep) -> JobView:
    """Cancels a job that is not finished; forgets the result of one that is."""
    return _view(service, service.jobs.cancel(job.tenant_id, job.id))


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    job: JobDep, service: ServiceDep, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterator[ServerSentEvent]:
    """Progress as server-sent events, up to the one that says how the job ended. Each event is the whole job, so none is missed."""
    seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() else -1
    while True:
        bell = service.changes.bell(job.id)
        job = await asyncio.to_thread(service.jobs.get, job.tenant_id, job.id)
        over = job.state in FINISHED
        if over or job.revision > seen:
            seen = job.revision
            yield ServerSentEvent(
                event=job.state if over else "progress", id=str(seen), data=await asyncio.to_thread(_view, service, job)
            )
        if over:
            return
        while not await ringing(bell, LOOK_SECONDS):
            if service.drained:
                return
