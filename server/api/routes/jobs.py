"""The caller's jobs: state, progress, result, cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ciphershift.errors import UnauthorizedError
from ciphershift.protocol.schemas import JobList, JobView
from ciphershift.server.api import schemas
from ciphershift.server.api.deps import InferCaller, JobDep, ServiceDep, StreamSlot
from ciphershift.server.api.routes.infer import BINARY_ANSWER, POLL_SECONDS, answer
from ciphershift.server.notifier import notified
from ciphershift.server.service import Service
from ciphershift.server.store.database import Job
from ciphershift.server.store.states import FINISHED, PENDING

RECHECK_SECONDS = 5.0
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
    return _view(service, service.cancel(job))


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    job: JobDep,
    service: ServiceDep,
    request: Request,
    _: StreamSlot,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events until the job is finished. Each event has the whole job, so a missed one does no harm."""
    seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 20 else -1
    checked = time.monotonic()
    while True:
        changed = service.notifier.subscribe(job.id)
        snapshot = await service.feed.read(changed, job)
        job = snapshot.job
        finished = job.state in FINISHED
        if finished or job.revision > seen:
            seen = job.revision
            event = job.state if finished else "progress"
            yield ServerSentEvent(event=event, id=str(seen), raw_data=snapshot.json)
        if finished:
            return
        while not await notified(changed, POLL_SECONDS) and time.monotonic() - checked <= RECHECK_SECONDS:
            if service.drained:
                return
        if time.monotonic() - checked > RECHECK_SECONDS:
            checked = time.monotonic()
            try:
                await asyncio.to_thread(service.caller, request.headers.get("Authorization"))
            except UnauthorizedError:  # the API key was revoked meanwhile
                return
