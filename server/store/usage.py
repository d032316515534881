"""What tenants use, by day (UTC): images and look-ups that were evaluated, bytes that came and went. Something to bill by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ciphershift.server.store.database import Tenant, Usage


def add(
    session: Session, tenant_id: str, *, images: int = 0, lookups: int = 0, received: int = 0, sent: int = 0
) -> None:
    """Adds to a tenant's record of today, within the caller's transaction."""
    day = datetime.now(UTC).date().isoformat()
    values = {
        Usage.images: Usage.images + images,
        Usage.lookups: Usage.lookups + lookups,
        Usage.bytes_received: Usage.bytes_received + received,
        Usage.bytes_sent: Usage.bytes_sent + sent,
    }
    change = update(Usage).where(Usage.tenant_id == tenant_id, Usage.day == day).values(values)
    if session.execute(change).rowcount:  # type: ignore[attr-defined]
        return
    try:
        with session.begin_nested():
            session.add(
                Usage(
                    tenant_id=tenant_id,
                    day=day,
                    images=images,
                    lookups=lookups,
                    bytes_received=received,
                    bytes_sent=sent,
                )
            )
    except IntegrityError:  # another process has made today's record
        session.execute(change)


def of(session: Session, name: str | None, first: str, last: str) -> Sequence[tuple[str, Usage]]:
    """Returns the records of one tenant, or of all, from one day to another, by name and day."""
    query = (
        select(Tenant.name, Usage)
        .join(Tenant, Tenant.id == Usage.tenant_id)
        .where(Usage.day >= first, Usage.day <= last)
        .order_by(Tenant.name, Usage.day)
    )
    return session.execute(query if name is None else query.where(Tenant.name == name)).all()
