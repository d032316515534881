"""Evaluation keys: content-addressed, immutable, private to their tenant, bounded by bytes, kept across restarts.

A bundle is one blob, named by its tenant and its key_id (the SHA-256 of its payload). The upload goes to a temporary file and is checked
as a container; name and row are made only then, so that a visible bundle is complete and matches its name.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from ciphershift.errors import QuotaExceededError, UnknownKeyError, UnknownParamsError, WrongKeyError
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Kind
from ciphershift.server.settings import Settings
from ciphershift.server.store.blobs import Blobs, Spool
from ciphershift.server.store.database import Database, Job, KeyBundle, Tenant
from ciphershift.server.store.jobs import UNFINISHED


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyInfo:
    """Id, parameter set and size of a bundle."""

    key_id: str
    params_id: str
    bytes: int


class KeyStore:
    """The bundles of evaluation keys of all tenants."""

    def __init__(
        self, database: Database, blobs: Blobs, settings: Settings, key_bytes: Callable[[], Mapping[str, int]]
    ) -> None:
        """Combines database and blob store.

        Args:
            database: holds the rows.
            blobs: holds the bundles.
            settings: `storage_bytes` bounds all bundles (beyond it the least recently used are deleted), `key_bytes_per_tenant`
                those of one tenant.
            key_bytes: returns the exact size of a bundle under each parameter set (params_id) that is served.
        """
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._key_bytes = key_bytes

    @property
    def upload_limit(self) -> int:
        """Size of the largest bundle that a served model uses."""
        return max(self._key_bytes().values(), default=HEADER_BYTES)

    async def add(self, tenant_id: str, key_id: str, chunks: AsyncIterator[bytes]) -> KeyInfo:
        """Stores the bundle that arrives in `chunks` under `key_id`; repeating this changes nothing.

        Raises:
            WireError, ParameterError, KeyMismatchError: a check of the container failed; nothing is stored.
            QuotaExceededError: the tenant's bytes of keys would exceed its limit.
        """
        with self._blobs.spool() as spool:
            async for chunk in chunks:
                spool.file.write(chunk)
            return await asyncio.to_thread(self._store, tenant_id, key_id, spool)

    def find(self, tenant_id: str, key_id: str) -> KeyInfo:
        """Returns a tenant's bundle and marks it as used.

        Raises:
            UnknownKeyError: the tenant has no such bundle.
        """
        row = (KeyBundle.tenant_id == tenant_id, KeyBundle.key_id == key_id)
        with self._database.reading() as session:
            bundle = session.scalar(select(KeyBundle).where(*row))
        if bundle is None:
            raise _unknown(key_id)
        if bundle.used < time.time() - 60:  # precise enough for eviction, without a write per request
            with self._database.writing() as session:
                session.execute(update(KeyBundle).where(*row).values(used=time.time()))
        return KeyInfo(key_id=key_id, params_id=bundle.params_id, bytes=bundle.bytes)

    def file(self, tenant_id: str, key_id: str) -> Path:
        """Returns a local file that holds the bundle, to be mapped.

        Raises:
            UnknownKeyError: it was removed.
        """
        try:
            return self._blobs.local(key_blob(tenant_id, key_id))
        except FileNotFoundError:
            raise UnknownKeyError(
                f"the evaluation keys {key_id} were removed after the job was accepted: upload them again"
            ) from None

    def delete(self, tenant_id: str, key_id: str) -> None:
        """Deletes a bundle.

        Raises:
            UnknownKeyError: the tenant has no such bundle.
        """
        with self._database.writing() as session:
            bundle = session.get(KeyBundle, (tenant_id, key_id))
            if bundle is None:
                raise _unknown(key_id)
            session.delete(bundle)
        self._blobs.delete(key_blob(tenant_id, key_id))

    def _store(self, tenant_id: str, key_id: str, spool: Spool) -> KeyInfo:
        spool.file.flush()
        info = self._check(key_id, spool.file.fileno())
        now = time.time()
        with self._database.writing() as session:
            session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update())
            self._admit(session, tenant_id, info)
            self._blobs.keep(spool, key_blob(tenant_id, key_id))
            session.merge(
                KeyBundle(
                    tenant_id=tenant_id,
                    key_id=key_id,
                    params_id=info.params_id,
                    bytes=info.bytes,
                    created=now,
                    used=now,
                )
            )
            session.flush()
            evicted = self._evict(session, keep=(tenant_id, key_id))
        for name in evicted:
            self._blobs.delete(name)
        return info

    def _check(self, key_id: str, descriptor: int) -> KeyInfo:
        size = os.fstat(descriptor).st_size
        header = container.read_header(os.pread(descriptor, HEADER_BYTES, 0))
        key_bytes = self._key_bytes().get(header.params_id)
        if key_bytes is None:
            raise UnknownParamsError(
                f"no served model uses the parameter set {header.params_id}: use the one in the model's profile"
            )
        container.unpack(
            memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)),
            kind=Kind.EVALUATION_KEYS,
            params_id=header.params_id,
            key_id=None,
            payload_bytes=key_bytes - HEADER_BYTES,
        )
        if header.key_id != key_id:
            raise WrongKeyError(f"the bundle's id is {header.key_id}, but it was sent to /v2/keys/{key_id}")
        return KeyInfo(key_id=key_id, params_id=header.params_id, bytes=size)

    def _admit(self, session: Session, tenant_id: str, info: KeyInfo) -> None:
        others = (KeyBundle.tenant_id == tenant_id, KeyBundle.key_id != info.key_id)
        held = session.scalar(select(func.coalesce(func.sum(KeyBundle.bytes), 0)).where(*others)) or 0
        limit = session.get_one(Tenant, tenant_id).key_bytes or self._settings.key_bytes_per_tenant
        if held + info.bytes > limit:
            raise QuotaExceededError(
                f"{held} of {limit} bytes of keys are used, the bundle has {info.bytes}: delete one (DELETE /v2/keys/…)",
                retry_after=3600,
            )

    def _evict(self, session: Session, keep: tuple[str, str]) -> list[str]:
        """Deletes the least recently used rows beyond `storage_bytes`, except those of unfinished jobs; returns their blobs."""
        needed = select(Job.id).where(
            Job.tenant_id == KeyBundle.tenant_id, Job.key_id == KeyBundle.key_id, Job.state.in_(UNFINISHED)
        )
        total = session.scalar(select(func.sum(KeyBundle.bytes))) or 0
        evicted = []
        for bundle in session.scalars(select(KeyBundle).where(~needed.exists()).order_by(KeyBundle.used)):
            if total <= self._settings.storage_bytes:
                break
            if (bundle.tenant_id, bundle.key_id) != keep:
                total -= bundle.bytes
                session.delete(bundle)
                evicted.append(key_blob(bundle.tenant_id, bundle.key_id))
        return evicted


def key_blob(tenant_id: str, key_id: str) -> str:
    """Returns the name of a bundle's blob."""
    # Both come from a request or a row: anything but hex digits could name a file outside the store.
    assert set(tenant_id + key_id) <= set("0123456789abcdef"), "routes accept hex digests only"
    return f"keys/{tenant_id}/{key_id}.keys"


def _unknown(key_id: str) -> UnknownKeyError:
    return UnknownKeyError(f"no evaluation keys {key_id} are stored here: upload them first")
