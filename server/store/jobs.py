"""Jobs: every inference is one, from its acceptance until its result expires.

    pending ──claim──▶ in_progress ──finish──▶ completed
       ▲                   │  │
       └──release, sweep───┘  └──fail, stop──▶ failed | canceled

A job is accepted when its row is committed; its images are stored before that. A runner claims it and may write to it only while the row
names that runner and that attempt, so a runner whose lease has expired cannot overwrite the work of its replacement.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from ciphershift.errors import (
    BusyError,
    CanceledError,
    CiphershiftError,
    DeadlineError,
    ExpiredError,
    IdempotencyConflictError,
    NotFinishedError,
    QuotaExceededError,
    UnknownJobError,
    WorkerLostError,
    from_code,
)
from ciphershift.server.engine.base import LayerProgress
from ciphershift.server.settings import Settings
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database, Job, RunnerLease, Tenant

PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELED = "pending", "in_progress", "completed", "failed", "canceled"
UNFINISHED = (PENDING, IN_PROGRESS)
FINISHED = (COMPLETED, FAILED, CANCELED)
MAX_ATTEMPTS = 5
MAX_NAMED = 500  # rows that one query names
DAY_SECONDS = 86400.0
ROW_SECONDS = 7 * DAY_SECONDS  # rows are kept this long after the result, to answer `expired`


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A checked request, before a job is made of it."""

    tenant_id: str
    model: str
    model_version: str
    model_digest: str
    lookups: int
    key_id: str
    request_id: str | None
    images: int
    tensor: bytes
    body_sha256: str
    idempotency_key: str | None


class JobStore:
    """All jobs. Every method blocks for a transaction."""

    def __init__(self, database: Database, blobs: Blobs, settings: Settings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings

    def submit(self, request: JobRequest) -> Job:
        """Accepts a request, or returns the job that was accepted under the same idempotency key.

        Raises:
            IdempotencyConflictError: that job has another body.
            QuotaExceededError: the tenant has used up its queries of the last 24 hours.
            BusyError: the queue is full.
        """
        with self._database.reading() as session:
            if (known := _same(session, request)) is not None:
                return known
            self._admit(session, request)
        job = self._new(request)
        self._blobs.write(request_blob(job.id), request.tensor)
        try:
            with self._database.writing() as session:
                # One submission of a tenant at a time: two at once could exceed its quota.
                session.execute(select(Tenant.id).where(Tenant.id == request.tenant_id).with_for_update())
                self._admit(session, request)
                session.add(job)
        except IntegrityError:
            self._blobs.delete(request_blob(job.id))
            with self._database.reading() as session:
                if (known := _same(session, request)) is not None:
                    return known
            raise
        except CiphershiftError:
            self._blobs.delete(request_blob(job.id))
            raise
        return job

    def get(self, tenant_id: str, job_id: str) -> Job:
        """Returns a tenant's job.

        Raises:
            UnknownJobError: the tenant has no such job.
        """
        with self._database.reading() as session:
            return _owned(session, tenant_id, job_id)

    def revisions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Returns revision numbers by job id, across tenants; ids without a row are left out."""
        revisions: dict[str, int] = {}
        with self._database.reading() as session:
            for start in range(0, len(job_ids), MAX_NAMED):
                some = job_ids[start : start + MAX_NAMED]
                query = select(Job.id, Job.revision).where(Job.id.in_(some))
                revisions |= dict(session.execute(query).tuples().all())
        return revisions

    def newest(self, tenant_id: str, limit: int) -> Sequence[Job]:
        """Returns a tenant's jobs, newest first."""
        query = select(Job).where(Job.tenant_id == tenant_id).order_by(Job.created.desc()).limit(limit)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def ahead(self, job: Job) -> int:
        """Returns how many waiting jobs are older than this one."""
        query = select(func.count()).where(Job.state == PENDING, Job.created < job.created)
        with self._database.reading() as session:
            return session.scalar(query) or 0

    def waiting(self) -> int:
        """Returns how many jobs wait for a worker."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).where(Job.state == PENDING)) or 0

    def images(self, job: Job) -> bytes:
        """Returns the tensor of encrypted images. Raises FileNotFoundError if the job is finished."""
        return self._blobs.read(request_blob(job.id))

    def result(self, job: Job) -> bytes:
        """Returns the tensor of encrypted logits.

        Raises:
            NotFinishedError: the job is pending or in progress.
            CanceledError: it was canceled.
            ExpiredError: its result has expired or was deleted.
            CiphershiftError: the error with which it failed.
        """
        if job.state in UNFINISHED:
            raise NotFinishedError(f"the job is {job.state}: wait for it, or follow /v2/jobs/{job.id}/events")
        if job.state == CANCELED:
            raise CanceledError("the job was canceled before it had a result")
        if job.state == FAILED:
            raise from_code(job.error_code or CiphershiftError.code, job.error_detail or "the job failed")
        try:
            if job.has_result:
                return self._blobs.read(result_blob(job))
        except FileNotFoundError:  # deleted after the row was read
            pass
        raise ExpiredError(
            f"the result expired after {self._settings.result_seconds:g} s or was deleted: send the request again"
        )

    def cancel(self, tenant_id: str, job_id: str) -> Job:
        """Cancels an unfinished job; deletes the result of a finished one.

        Raises:
            UnknownJobError: the tenant has no such job.
        """
        with self._database.writing() as session:
            job = _owned(session, tenant_id, job_id, lock=True)
            if job.state == IN_PROGRESS:
                job.cancel_requested = True
                job.revision += 1
            elif job.state == PENDING:
                self._end(job, CANCELED)
            else:
                job.has_result = False
                job.revision += 1
        if job.state != IN_PROGRESS:
            self._clear(job)
        return job

    def claim(self, runner_id: str) -> Job | None:
        """Claims a waiting job: the oldest one of the tenant that was served least recently."""
        other = aliased(Job)
        last = select(func.max(other.started)).where(other.tenant_id == Job.tenant_id).scalar_subquery()
        query = (
            select(Job)
            .where(Job.state == PENDING, Job.deadline > time.time())
            .order_by(func.coalesce(last, 0.0), Job.created)
            .limit(1)
            .with_for_update(skip_locked=True, of=Job)
        )
        with self._database.reading() as session:
            if not session.scalar(select(func.count()).where(Job.state == PENDING)):
                return None  # the most frequent case, without a lock
        with self._database.writing() as session:
            job = session.scalar(query)
            if job is not None:
                job.state, job.runner_id, job.started = IN_PROGRESS, runner_id, time.time()
                job.attempt += 1
                job.revision += 1
                job.layer, job.bootstraps_done, job.images_done, job.ready_at = None, 0, 0, None
        return job

    def advance(self, job: Job, step: LayerProgress | None) -> bool:
        """Stores a job's progress if it has changed; returns whether the runner should continue."""
        query = select(Job.cancel_requested, Job.bootstraps_done).where(*_held(job))
        with self._database.reading() as session:
            row = session.execute(query).one_or_none()
        if row is None or row.cancel_requested:
            return False
        if step is not None and step.lookups_done > row.bootstraps_done:
            now, started = time.time(), job.started or 0.0
            values = {
                "layer": step.layer,
                "bootstraps_done": step.lookups_done,
                "images_done": step.images_done,
                "ready_at": now + (now - started) * (job.bootstraps_total / step.lookups_done - 1),
                "revision": Job.revision + 1,
            }
            with self._database.writing() as session:
                session.execute(update(Job).where(*_held(job)).values(values))
        return True

    def finish(self, job: Job, tensor: bytes, seconds: float, key_seconds: float) -> str | None:
        """Stores a job's result; returns the job's new state, or None if this runner no longer holds it."""
        self._blobs.write(result_blob(job), tensor)
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is not None:
                self._end(mine, COMPLETED)
                mine.has_result = True
                mine.images_done, mine.bootstraps_done = mine.images, mine.bootstraps_total
                mine.seconds, mine.key_seconds = seconds, key_seconds
        self._blobs.delete(result_blob(job) if mine is None else request_blob(job.id))
        return None if mine is None else mine.state

    def fail(self, job: Job, error: CiphershiftError) -> str | None:
        """Fails a job; after the loss of a worker it is queued again, up to MAX_ATTEMPTS times.

        Returns:
            The job's new state, or None if this runner no longer holds it.
        """
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is not None and isinstance(error, WorkerLostError):
                self._recover(mine)
            elif mine is not None:
                self._end(mine, FAILED, error)
        if mine is not None and mine.state in FINISHED:
            self._clear(mine)
        return None if mine is None else mine.state

    def stop(self, job: Job) -> str | None:
        """Marks a job as canceled after its worker has stopped; returns what `fail` returns."""
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is not None:
                self._end(mine, CANCELED)
        if mine is not None:
            self._clear(mine)
        return None if mine is None else mine.state

    def release(self, job: Job) -> None:
        """Returns a job to the queue because its runner stops; the attempt does not count."""
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is not None:
                self._requeue(mine)
                mine.attempt -= 1

    def beat(self, runner_id: str, slots: int) -> None:
        """Renews a runner's lease and stores how many jobs it evaluates at once."""
        with self._database.writing() as session:
            session.merge(RunnerLease(id=runner_id, expires=time.time() + self._settings.lease_seconds, slots=slots))

    def leave(self, runner_id: str) -> None:
        """Deletes a runner's lease."""
        with self._database.writing() as session:
            session.execute(delete(RunnerLease).where(RunnerLease.id == runner_id))

    def slots(self) -> int:
        """Returns how many jobs all live runners evaluate at once."""
        with self._database.reading() as session:
            return self._slots(session)

    def sweep(self) -> list[str]:
        """Applies time-outs: requeues jobs of expired runners, fails overdue jobs, expires results, deletes old rows.

        Any process may call this at any time.

        Returns:
            The ids of the jobs that changed.
        """
        now = time.time()
        with self._database.writing() as session:
            session.execute(delete(RunnerLease).where(RunnerLease.expires < now))
            changed = [
                self._recover(job) for job in session.scalars(_to_recover(now).with_for_update(skip_locked=True))
            ]
            expired = session.scalars(
                select(Job).where(Job.has_result, Job.expires < now).with_for_update(skip_locked=True)
            ).all()
            for job in expired:
                job.has_result = False
            session.execute(delete(Job).where(Job.expires < now - ROW_SECONDS))
        for job in (*changed, *expired):
            if job.state not in UNFINISHED:
                self._clear(job)
        return [job.id for job in changed]

    def _admit(self, session: Session, request: JobRequest) -> None:
        tenant = session.get_one(Tenant, request.tenant_id)
        now = time.time()
        recent = (Job.tenant_id == tenant.id, Job.created > now - DAY_SECONDS)
        quota = tenant.queries_per_day or self._settings.queries_per_day
        used = session.scalar(select(func.coalesce(func.sum(Job.images), 0)).where(*recent)) or 0
        if used + request.images > quota:
            first = session.scalar(select(func.min(Job.created)).where(*recent)) or now
            raise QuotaExceededError(
                f"{used} of {quota} queries of the last 24 hours are used, the request has {request.images}: "
                "wait, or ask for a larger quota",
                retry_after=first + DAY_SECONDS - now,
            )
        unfinished = session.scalar(select(func.count()).where(Job.state.in_(UNFINISHED))) or 0
        if unfinished >= self._settings.queue_depth + max(self._slots(session), 1):
            raise BusyError(f"{unfinished} jobs are unfinished, the queue is full: try again later")

    def _slots(self, session: Session) -> int:
        living = select(func.coalesce(func.sum(RunnerLease.slots), 0)).where(RunnerLease.expires >= time.time())
        return session.scalar(living) or 0

    def _new(self, request: JobRequest) -> Job:
        now = time.time()
        return Job(
            id=uuid.uuid4().hex,
            tenant_id=request.tenant_id,
            idempotency_key=request.idempotency_key,
            body_sha256=request.body_sha256,
            model=request.model,
            model_version=request.model_version,
            model_digest=request.model_digest,
            key_id=request.key_id,
            request_id=request.request_id,
            images=request.images,
            state=PENDING,
            created=now,
            deadline=now + self._settings.deadline_seconds,
            has_result=False,
            attempt=0,
            cancel_requested=False,
            revision=0,
            bootstraps_done=0,
            bootstraps_total=request.lookups * request.images,
            images_done=0,
        )

    def _end(self, job: Job, state: str, error: CiphershiftError | None = None) -> None:
        job.state, job.finished, job.ready_at = state, time.time(), None
        job.expires = job.finished + self._settings.result_seconds
        job.revision += 1
        if error is not None:
            job.error_code, job.error_detail = error.code, error.message

    def _requeue(self, job: Job) -> None:
        job.state, job.runner_id, job.ready_at = PENDING, None, None
        job.revision += 1

    def _recover(self, job: Job) -> Job:
        """Requeues or ends a job that lost its worker or waited beyond its deadline."""
        if job.cancel_requested:
            self._end(job, CANCELED)
        elif job.deadline < time.time():
            self._end(
                job, FAILED, DeadlineError(f"the job was not finished within {self._settings.deadline_seconds:g} s")
            )
        elif job.attempt >= MAX_ATTEMPTS:
            self._end(
                job, FAILED, WorkerLostError(f"its worker was lost {job.attempt} times: send the request again later")
            )
        else:
            self._requeue(job)
        return job

    def _clear(self, job: Job) -> None:
        """Deletes the blobs that the row no longer refers to."""
        self._blobs.delete(request_blob(job.id))
        if not job.has_result:
            self._blobs.delete(result_blob(job))


def request_blob(job_id: str) -> str:
    """Returns the name of the blob with a job's images."""
    return f"jobs/{job_id}.request"


def result_blob(job: Job) -> str:
    """Returns the name of the blob with a job's logits: one per attempt, so that none overwrites another's."""
    return f"jobs/{job.id}.result-{job.attempt}"


def _same(session: Session, request: JobRequest) -> Job | None:
    """The job that was accepted under the request's idempotency key, or None."""
    if request.idempotency_key is None:
        return None
    known = session.scalar(
        select(Job).where(Job.tenant_id == request.tenant_id, Job.idempotency_key == request.idempotency_key)
    )
    if known is not None and known.body_sha256 != request.body_sha256:
        raise IdempotencyConflictError(
            f"Idempotency-Key {request.idempotency_key} was used for another request: use a new one for each request"
        )
    return known


def _owned(session: Session, tenant_id: str, job_id: str, *, lock: bool = False) -> Job:
    query = select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise UnknownJobError(f"there is no job {job_id}")
    return job


def _held(job: Job) -> tuple[ColumnElement[bool], ...]:
    """The condition that the runner which claimed `job` still holds it."""
    return Job.id == job.id, Job.state == IN_PROGRESS, Job.runner_id == job.runner_id, Job.attempt == job.attempt


def _lock(session: Session, job: Job) -> Job | None:
    return session.scalar(select(Job).where(*_held(job)).with_for_update())


def _to_recover(now: float) -> Select[Job]:
    overdue = (Job.state == PENDING) & (Job.deadline < now)
    orphaned = (Job.state == IN_PROGRESS) & Job.runner_id.not_in(select(RunnerLease.id))
    return select(Job).where(or_(overdue, orphaned))
