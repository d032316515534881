"""Whether a request is accepted: the tenant's quotas, the depth of the queue, and whether it can be finished before its deadline."""

from __future__ import annotations

import time

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ciphershift.errors import BusyError, DeadlineError, QuotaExceededError
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Job, RunnerLease, Tenant
from ciphershift.server.store.states import COMPLETED, UNFINISHED

DAY_SECONDS = 86400.0
RATE_SECONDS = 7200.0  # jobs accepted within this time say how long a look-up takes


def admit(session: Session, settings: Settings, tenant_id: str, model: str, images: int, lookups: int) -> None:
    """Returns if a job may be accepted now.

    Args:
        session: with the tenant's row locked, if the job will be added in it.
        settings: limits that a tenant has no value of its own for.
        tenant_id: of the caller.
        model: its name.
        images: of the job.
        lookups: of the job, all images together.

    Raises:
        QuotaExceededError: the tenant's images or look-ups of the last 24 hours are used up.
        BusyError: the tenant's queue, or that of all, is full; or the job would wait past its deadline.
        DeadlineError: the job alone takes longer than its deadline allows.
    """
    tenant = session.get_one(Tenant, tenant_id)
    _check_quota(session, tenant.id, images, tenant.queries_per_day or settings.queries_per_day, Job.images, "queries")
    allowed = tenant.lookups_per_day or settings.lookups_per_day
    if allowed is not None:
        _check_quota(session, tenant.id, lookups, allowed, Job.bootstraps_total, "look-ups")
    capacity = max(slots(session), 1)
    _check_depth(session, tenant, settings, capacity)
    _check_deadline(session, tenant.id, model, lookups, settings.deadline_seconds, capacity)


def slots(session: Session) -> int:
    """Returns how many jobs all live runners evaluate at once."""
    live = select(func.coalesce(func.sum(RunnerLease.slots), 0)).where(RunnerLease.expires >= time.time())
    return int(session.scalar(live) or 0)  # PostgreSQL sums to a Decimal


def _check_quota(
    session: Session, tenant_id: str, wanted: int, quota: int, column: InstrumentedAttribute[int], unit: str
) -> None:
    now = time.time()
    recent = (Job.tenant_id == tenant_id, Job.created > now - DAY_SECONDS)
    used = session.scalar(select(func.coalesce(func.sum(column), 0)).where(*recent)) or 0
    if used + wanted > quota:
        first = session.scalar(select(func.min(Job.created)).where(*recent)) or now
        raise QuotaExceededError(
            f"{used} of {quota} {unit} of the last 24 hours are used, the request has {wanted}: wait, or ask for a larger quota",
            retry_after=first + DAY_SECONDS - now,
        )


def _check_depth(session: Session, tenant: Tenant, settings: Settings, capacity: int) -> None:
    unfinished = select(func.count()).where(Job.state.in_(UNFINISHED))
    own = session.scalar(unfinished.where(Job.tenant_id == tenant.id)) or 0
    depth = settings.queue_depth if tenant.queue_depth is None else tenant.queue_depth
    if own >= depth + capacity:
        raise BusyError(f"{own} of your jobs are unfinished, {depth} may wait: try again when one is finished")
    if (session.scalar(unfinished) or 0) >= settings.queue_depth_total + capacity:
        raise BusyError("the queue of the service is full: try again later")


def _check_deadline(
    session: Session, tenant_id: str, model: str, lookups: int, deadline_seconds: float, capacity: int
) -> None:
    """Compares the time that look-ups took lately with the deadline; without such a measurement every job is accepted."""
    seconds = _seconds_per_lookup(session)
    if model not in seconds:
        return
    alone = lookups * seconds[model]
    if alone > deadline_seconds:
        raise DeadlineError(
            f"the job needs about {alone:.0f} s of computing, its deadline is {deadline_seconds:g} s: "
            "send fewer images in one request"
        )
    waiting = select(Job.tenant_id, Job.model, func.sum(Job.bootstraps_total - Job.bootstraps_done))
    rows = session.execute(waiting.where(Job.state.in_(UNFINISHED)).group_by(Job.tenant_id, Job.model)).all()
    work = [(owner, float(left or 0) * seconds.get(name, seconds[model])) for owner, name, left in rows]
    own = alone + sum(spent for owner, spent in work if owner == tenant_id)
    everything = alone + sum(spent for _, spent in work)
    tenants = len({owner for owner, _ in work} | {tenant_id})
    # Tenants take turns: until this job is done, no other one gets more than its own work and this tenant's together.
    expected = min(everything, own * tenants) / capacity
    if expected > deadline_seconds:
        raise BusyError(
            f"the job would be done in about {expected:.0f} s, its deadline is {deadline_seconds:g} s: try later"
        )


def _seconds_per_lookup(session: Session) -> dict[str, float]:
    query = (
        select(Job.model, func.sum(Job.seconds - Job.key_seconds), func.sum(Job.bootstraps_total))
        .where(Job.state == COMPLETED, Job.created > time.time() - RATE_SECONDS, Job.seconds.is_not(None))
        .group_by(Job.model)
    )
    rows = session.execute(query)
    return {name: max(float(spent or 0), 0.0) / float(total) for name, spent, total in rows if total}
