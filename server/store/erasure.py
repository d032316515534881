"""Off-boarding: everything of a closed tenant that the service holds, deleted. Its name, its usage and the audit trail stay."""

from __future__ import annotations

from sqlalchemy import delete, select, update

from ciphershift.errors import ConfigurationError
from ciphershift.server.store import audit
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import ApiKey, Database, Job, KeyBundle, Tenant
from ciphershift.server.store.states import IN_PROGRESS


def erase(database: Database, blobs: Blobs, name: str, actor: str) -> tuple[int, int]:
    """Deletes a closed tenant's evaluation keys, jobs, images, answers and API keys.

    Jobs that are being evaluated are canceled; their workers delete what they hold. Erase again to be rid of their rows.

    Returns:
        How many jobs and key bundles were deleted.

    Raises:
        ConfigurationError: there is no such tenant, or it is not closed.
    """
    with database.writing() as session:
        tenant = session.scalar(select(Tenant).where(Tenant.name == name))
        if tenant is None:
            raise ConfigurationError(f"there is no tenant {name!r}: ciphershift tenants list shows them")
        if tenant.closed is None:
            raise ConfigurationError(
                f"tenant {name!r} is not closed: ciphershift tenants close {name} ends its service first"
            )
        running = (Job.tenant_id == tenant.id, Job.state == IN_PROGRESS)
        session.execute(update(Job).where(*running).values(cancel_requested=True, revision=Job.revision + 1))
        over = (Job.tenant_id == tenant.id, Job.state != IN_PROGRESS)
        job_ids = set(session.scalars(select(Job.id).where(*over)))
        bundles = session.scalars(select(KeyBundle.blob).where(KeyBundle.tenant_id == tenant.id)).all()
        session.execute(delete(Job).where(*over))
        session.execute(delete(KeyBundle).where(KeyBundle.tenant_id == tenant.id))
        session.execute(delete(ApiKey).where(ApiKey.tenant_id == tenant.id))
        audit.record(session, actor, "tenant.erase", name, jobs=len(job_ids), bundles=len(bundles))
    of_jobs = [
        blob for blob in blobs.names("jobs", float("inf")) if blob.removeprefix("jobs/").partition(".")[0] in job_ids
    ]
    for blob in (*of_jobs, *bundles):
        blobs.delete(blob)
    return len(job_ids), len(bundles)
