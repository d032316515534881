"""Whose job is next: tenants take turns by look-ups, so that one with many or long jobs does not keep others waiting.

Start-time fair queueing. `Tenant.turn` counts the look-ups that a tenant has been given. The waiting job of the tenant with the smallest
count is next. A tenant that comes back after a pause starts at the count of those that are being served, so that it cannot save up turns.
"""

from __future__ import annotations

import time

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from ciphershift.server.store.database import Job, Tenant
from ciphershift.server.store.states import PENDING, UNFINISHED

FIRST = 0.5  # of a look-up: a tenant that comes now is before those that had their turn just before


def next_job() -> Select[Job]:
    """The query for the job that is next; it locks the row."""
    return (
        select(Job)
        .join(Tenant, Tenant.id == Job.tenant_id)
        .where(Job.state == PENDING, Job.deadline > time.time())
        .order_by(Tenant.turn, Job.created)
        .limit(1)
        .with_for_update(skip_locked=True, of=Job)
    )


def enter(session: Session, tenant_id: str) -> None:
    """Places a tenant that submits a job among the others; call it before the job's row is added."""
    unfinished = select(Job.id).where(Job.tenant_id == Tenant.id, Job.state.in_(UNFINISHED)).exists()
    if session.scalar(select(Tenant.id).where(Tenant.id == tenant_id, unfinished)) is not None:
        return
    served = session.scalar(select(func.min(Tenant.turn)).where(unfinished))
    floor = session.scalar(select(func.max(Tenant.turn))) if served is None else served - FIRST
    session.execute(update(Tenant).where(Tenant.id == tenant_id, Tenant.turn < floor).values(turn=floor))


def charge(session: Session, job: Job, images: int) -> None:
    """Counts the look-ups of the images that are evaluated next."""
    lookups = job.bootstraps_total * min(images, job.images - job.images_kept) / job.images
    session.execute(update(Tenant).where(Tenant.id == job.tenant_id).values(turn=Tenant.turn + lookups))


def others_first(session: Session, job: Job) -> bool:
    """Whether another tenant's waiting job comes before the rest of this one."""
    own = session.scalar(select(Tenant.turn).where(Tenant.id == job.tenant_id)) or 0.0
    query = (
        select(Job.id)
        .join(Tenant, Tenant.id == Job.tenant_id)
        .where(Job.state == PENDING, Job.deadline > time.time(), Job.tenant_id != job.tenant_id, Tenant.turn < own)
        .limit(1)
    )
    return session.scalar(query) is not None
