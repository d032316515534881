"""Jobs: every inference is one, from its acceptance until its result expires.

    pending ──claim──▶ in_progress ──finish──▶ completed
       ▲                   │  │
       └──release, sweep───┘  └──fail, stop──▶ failed | canceled

A job is accepted when its row is committed; its images are stored before that. A runner claims it and may write to it only while the row
names that runner and that attempt, so a runner whose lease has expired cannot overwrite the work of its replacement. Answers are stored
turn by turn (Settings.turn_images): between two turns, or when a worker has saved what it has of one, a job may return to the queue so that
another tenant has its turn.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ciphershift.errors import (
    CanceledError,
    CiphershiftError,
    DeadlineError,
    ExpiredError,
    IdempotencyConflictError,
    NotFinishedError,
    UnknownJobError,
    WorkerLostError,
    from_code,
)
from ciphershift.server.engine.base import LayerProgress
from ciphershift.server.settings import Settings
from ciphershift.server.store import admission, turns, usage
from ciphershift.server.store.admission import DAY_SECONDS
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database, Job, RunnerLease, Tenant
from ciphershift.server.store.states import (
    CANCELED,
    COMPLETED,
    FAILED,
    FINISHED,
    IN_PROGRESS,
    PENDING,
    UNFINISHED,
)

MAX_ATTEMPTS = 5
MAX_NAMED = 500  # rows that one query names
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
    traceparent: str | None = None


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
            QuotaExceededError, BusyError, DeadlineError: see admission.admit.
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
                turns.enter(session, request.tenant_id)
                usage.add(session, request.tenant_id, received=len(request.tensor))
                session.add(job)
        except BaseException as error:
            self._blobs.delete(request_blob(job.id))
            if isinstance(error, IntegrityError):
                with self._database.reading() as session:
                    if (known := _same(session, request)) is not None:
                        return known
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
                revisions |= dict(session.execute(query).all())
        return revisions

    def newest(self, tenant_id: str, limit: int) -> Sequence[Job]:
        """Returns a tenant's jobs, newest first."""
        query = select(Job).where(Job.tenant_id == tenant_id).order_by(Job.created.desc()).limit(limit)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def ahead(self, job: Job) -> int:
        """Returns how many of the tenant's own waiting jobs are older than this one; those of others are not its business."""
        query = select(func.count()).where(
            Job.state == PENDING, Job.created < job.created, Job.tenant_id == job.tenant_id
        )
        with self._database.reading() as session:
            return session.scalar(query) or 0

    def waiting(self) -> int:
        """Returns how many jobs wait for a worker."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).where(Job.state == PENDING)) or 0

    def images(self, job: Job) -> bytes:
        """Returns the tensor of encrypted images. Raises FileNotFoundError if the job is finished."""
        return self._blobs.read(request_blob(job.id))

    def checkpoint(self, job: Job) -> Path:
        """Returns where a worker of this machine keeps what it has computed of the job."""
        return self._blobs.beside(f"jobs/{job.id}.checkpoint")

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

    def cancel(self, tenant_id: str, job_id: str) -> tuple[Job, bool]:
        """Cancels an unfinished job; deletes the result of a finished one.

        Returns:
            the job, and whether it ended here: one that is being evaluated ends where its worker stops.

        Raises:
            UnknownJobError: the tenant has no such job.
        """
        with self._database.writing() as session:
            job = _owned(session, tenant_id, job_id, lock=True)
            waited = job.state == PENDING
            if job.state == IN_PROGRESS:
                job.cancel_requested = True
                job.revision += 1
            elif waited:
                self._end(job, CANCELED)
            else:
                job.has_result = False
                job.revision += 1
        if job.state != IN_PROGRESS:
            self._clear(job)
        return job, waited

    def claim(self, runner_id: str) -> Job | None:
        """Claims the waiting job that is next (see turns); images whose answers are stored need not be evaluated again."""
        with self._database.reading() as session:
            if not session.scalar(select(func.count()).where(Job.state == PENDING)):
                return None  # the most frequent case, without a lock
        with self._database.writing() as session:
            job = session.scalar(turns.next_job())
            if job is not None:
                turns.charge(session, job, turns.end_of_turn(job, self._settings))
                job.state, job.runner_id = IN_PROGRESS, runner_id
                job.started = time.time() if job.started is None or not job.images_kept else job.started
                job.attempt += 1
                job.revision += 1
                job.layer, job.images_done, job.ready_at = None, job.images_kept, None
                job.bootstraps_done = job.bootstraps_total * job.images_kept // job.images
        return job

    def keep(self, job: Job, answers: Sequence[bytes], seconds: float, key_seconds: float) -> bool:
        """Stores the answers of some of a job's images; returns whether its runner should go on with the rest.

        If another tenant is next, the job returns to the queue instead.

        Args:
            job: claimed by the runner; `images_kept` is updated.
            answers: a tensor of one answer for each of the next images.
            seconds: time taken, `key_seconds` of it for expanding keys.
            key_seconds: see `seconds`.
        """
        for number, answer in enumerate(answers, start=job.images_kept):
            self._blobs.write(answer_blob(job, number), answer)
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is None:
                return False
            self.checkpoint(job).unlink(missing_ok=True)
            mine.images_kept += len(answers)
            mine.bootstraps_done = mine.bootstraps_total // mine.images * mine.images_kept
            turns.charge(session, mine, mine.bootstraps_done)
            mine.seconds, mine.key_seconds = (mine.seconds or 0.0) + seconds, (mine.key_seconds or 0.0) + key_seconds
            job.images_kept = mine.images_kept
            if turns.others_first(session, mine) and not mine.cancel_requested:
                self._requeue(mine)
                mine.attempt -= 1
                return False
            turns.charge(session, mine, turns.end_of_turn(mine, self._settings))
        return True

    def pause(self, job: Job, saved: int) -> bool:
        """Returns a job to the queue if another tenant is next; the attempt does not count.

        Args:
            job: claimed by the runner.
            saved: its look-ups that the next attempt need not repeat.
        """
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is None or mine.cancel_requested:
                return False
            mine.bootstraps_done = saved
            if turns.others_first(session, mine):
                self._requeue(mine)
                mine.attempt -= 1
                return True
            turns.charge(session, mine, turns.end_of_turn(mine, self._settings))
        return False

    def advance(self, job: Job, step: LayerProgress | None, ready_at: float | None = None) -> bool:
        """Stores a job's progress, and when it will be ready, if it has changed; returns whether the runner should continue."""
        query = select(Job.cancel_requested, Job.bootstraps_done).where(*_held(job))
        with self._database.reading() as session:
            row = session.execute(query).one_or_none()
        if row is None or row.cancel_requested:
            return False
        if step is not None and step.lookups_done > row.bootstraps_done:
            values = {
                "layer": step.layer,
                "bootstraps_done": step.lookups_done,
                "images_done": step.images_done,
                "ready_at": ready_at,
                "revision": Job.revision + 1,
            }
            with self._database.writing() as session:
                session.execute(update(Job).where(*_held(job)).values(values))
        return True

    def finish(self, job: Job, tensor: bytes, seconds: float, key_seconds: float) -> str | None:
        """Stores the answers of a job's last images, and with them its result.

        Returns:
            The job's new state, or None if this runner no longer holds it.
        """
        try:
            kept = [self._blobs.read(answer_blob(job, number)) for number in range(job.images_kept)]
        except FileNotFoundError:
            raise CiphershiftError(
                "answers of the job's first images are no longer in the store: send it again"
            ) from None
        result = b"".join([*kept, tensor])
        self._blobs.write(result_blob(job), result)
        with self._database.writing() as session:
            mine = _lock(session, job)
            if mine is not None:
                turns.charge(session, mine, mine.bootstraps_total)
                self._end(mine, COMPLETED)
                mine.has_result = True
                mine.images_done, mine.bootstraps_done = mine.images, mine.bootstraps_total
                mine.seconds, mine.key_seconds = (
                    (mine.seconds or 0.0) + seconds,
                    (mine.key_seconds or 0.0) + key_seconds,
                )
                usage.add(session, mine.tenant_id, images=mine.images, lookups=mine.bootstraps_total, sent=len(result))
        if mine is None:
            self._blobs.delete(result_blob(job))
        else:
            self._clear(mine)
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
            return admission.slots(session)

    def sweep(self) -> list[Job]:
        """Applies time-outs: requeues jobs of expired runners, fails overdue jobs, expires results, deletes old rows.

        Any process may call this at any time.

        Returns:
            The jobs whose state changed. No two calls return the same change.
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
        return changed

    def _admit(self, session: Session, request: JobRequest) -> None:
        lookups = request.lookups * request.images
        admission.admit(session, self._settings, request.tenant_id, request.model, request.images, lookups)

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
            traceparent=request.traceparent,
            images=request.images,
            state=PENDING,
            created=now,
            deadline=now + self._settings.deadline_seconds,
            has_result=False,
            attempt=0,
            cancel_requested=False,
            images_kept=0,
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
        self.checkpoint(job).unlink(missing_ok=True)
        for number in range(job.images_kept):
            self._blobs.delete(answer_blob(job, number))
        if not job.has_result:
            self._blobs.delete(result_blob(job))


def request_blob(job_id: str) -> str:
    """Returns the name of the blob with a job's images."""
    return f"jobs/{job_id}.request"


def result_blob(job: Job) -> str:
    """Returns the name of the blob with a job's logits: one per attempt, so that none overwrites another's."""
    return f"jobs/{job.id}.result-{job.attempt}"


def answer_blob(job: Job, number: int) -> str:
    """Returns the name of the blob with the answer to one image of an unfinished job."""
    return f"jobs/{job.id}.answer-{number}"


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
