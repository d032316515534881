"""The audit trail: administrative acts, in the database and in the log. The service never changes or deletes a record."""

from __future__ import annotations

import getpass
import logging
import time
import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from ciphershift.server.store.database import AuditRecord

_log = logging.getLogger("ciphershift.audit")  # silent on a command line, whose output is the answer


def record(session: Session, actor: str, action: str, target: str, **detail: object) -> None:
    """Records an act within the transaction that does it.

    Args:
        session: of that transaction.
        actor: `operator:<user>` for the command line, `tenant:<name>/<API key id>` for the API.
        action: such as `tenant.create`.
        target: what it was done to.
        detail: values that were set; never a secret.
    """
    text = " ".join(f"{name}={value}" for name, value in detail.items() if value is not None)
    session.add(
        AuditRecord(
            id=uuid.uuid4().hex, time=time.time(), actor=actor[:128], action=action, target=target[:128], detail=text
        )
    )
    _log.info("audit", extra={"actor": actor, "action": action, "target": target, "detail": text})


def newest(session: Session, limit: int) -> Sequence[AuditRecord]:
    """Returns the latest acts, newest first."""
    return session.scalars(select(AuditRecord).order_by(AuditRecord.time.desc()).limit(limit)).all()


def operator() -> str:
    """Returns the actor of a command line: the user of this machine who runs it."""
    try:
        return f"operator:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return "operator"
