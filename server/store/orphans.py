"""Blobs without rows: left by processes that were killed between the two. They count against no quota, so they are swept away."""

from __future__ import annotations

import time

from sqlalchemy import select

from ciphershift.server import logs
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database, Job, KeyBundle

AGE_SECONDS = 3600.0  # a younger blob may belong to a row that is about to be committed
_log = logs.get("orphans")


def sweep(database: Database, blobs: Blobs) -> int:
    """Deletes the blobs that no row names; returns how many."""
    old = time.time() - AGE_SECONDS
    names = {name: name.removeprefix("jobs/").partition(".")[0] for name in blobs.names("jobs", old)}
    keys = blobs.names("keys", old)
    with database.reading() as session:
        # Without a result and finished, a job has no blobs; its row may still be there.
        rows = session.execute(select(Job.id, Job.finished, Job.has_result))
        owners = {job_id for job_id, finished, has_result in rows if finished is None or has_result}
        bundles = set(session.scalars(select(KeyBundle.blob)))
    orphans = [name for name, job_id in names.items() if job_id not in owners] + [k for k in keys if k not in bundles]
    for name in orphans:
        blobs.delete(name)
    blobs.clean_spool()
    if orphans:
        _log.warning("orphans_deleted", blobs=len(orphans))
    return len(orphans)
