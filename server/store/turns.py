"""Whose job is next: tenants take turns by look-ups, so that one with many or long jobs does not keep others waiting.

Start-time fair queueing. `Tenant.turn` counts the look-ups that a tenant has been given. The waiting job of the tenant with the smallest
count is next. A job is charged for a turn when the turn begins, and for what it really did when it ends. A tenant that comes back after
a pause starts at the count of those that are being served, so that it cannot save up turns.
"""

from __future__ import annotations

import time

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Job, Tenant
from ciphershift.server.store.states import PENDING, UNFINISHED

TURN_LOOKUPS = 50_000
"""After which a job whose state is saved makes way: half a minute or so of two cores."""
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


def charge(session: Session, job: Job, until: int) -> None:
    """Counts the look-ups of a job up to the given one, once."""
    more = min(until, job.bootstraps_total) - job.bootstraps_charged
    if more > 0:
        session.execute(update(Tenant).where(Tenant.id == job.tenant_id).values(turn=Tenant.turn + more))
        job.bootstraps_charged += more


def end_of_turn(job: Job, settings: Settings) -> int:
    """The look-up up to which a job is charged before it is evaluated further: of the next images, TURN_LOOKUPS at most."""
    each = job.bootstraps_total // job.images
    images = settings.turn_images(each)
    return min(each * (job.images_kept + images), max(job.bootstraps_done, each * job.images_kept) + TURN_LOOKUPS)


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
