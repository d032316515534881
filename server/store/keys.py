"""Evaluation keys: content-addressed, immutable, private to their tenant, bounded by bytes, kept across restarts.

A bundle is one blob, named by its tenant and its key_id (the SHA-256 of its payload). Its header is checked before anything is written:
secret keys that somebody sends by mistake never reach the disk. Then the upload goes to a temporary file and is checked as a container;
name and row are made only then, so that a visible bundle is complete and matches its name.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.orm import Session

from ciphershift.errors import BusyError, QuotaExceededError, UnknownKeyError, UnknownParamsError, WrongKeyError
from ciphershift.protocol import container
from ciphershift.protocol.container import HEADER_BYTES, Header, Kind
from ciphershift.server import logs
from ciphershift.server.settings import Settings
from ciphershift.server.store import usage
from ciphershift.server.store.admission import DAY_SECONDS
from ciphershift.server.store.blobs import Blobs, Spool
from ciphershift.server.store.database import Database, Job, KeyBundle, Tenant
from ciphershift.server.store.states import UNFINISHED

_log = logs.get("keys")


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
        self._uploads: dict[str, list[int]] = {}  # sizes of the uploads under way, by tenant

    @property
    def upload_limit(self) -> int:
        """Size of the largest bundle that a served model uses."""
        return max(self._key_bytes().values(), default=HEADER_BYTES)

    async def add(self, tenant_id: str, key_id: str, chunks: AsyncIterator[bytes], announced: int | None) -> KeyInfo:
        """Stores the bundle that arrives in `chunks` under `key_id`; repeating this changes nothing.

        Args:
            tenant_id: of the caller.
            key_id: that the bundle must have.
            chunks: the body.
            announced: its Content-Length, by which it is admitted before it is read; if unknown, the largest bundle counts.

        Raises:
            WireError, ParameterError, KeyMismatchError: a check of the container failed; nothing is stored.
            QuotaExceededError: the tenant's bytes of keys would exceed its limit.
            BusyError: the tenant uploads as many bundles at once as it may.
        """
        with self._uploading(tenant_id, self.upload_limit if announced is None else announced):
            await asyncio.to_thread(self._admit_upload, tenant_id, key_id)
            head = b""
            async for chunk in chunks:
                head += chunk
                if len(head) >= HEADER_BYTES:
                    break
            self._check_header(head)
            with self._blobs.spool() as spool:
                spool.file.write(head)
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
        stale = bundle.used < time.time() - 60  # precise enough for eviction, without a write per request
        if (stale or self._blobs.is_local) and not self._blobs.exists(bundle.blob):
            self.forget(tenant_id, key_id, bundle.blob)
            raise _unknown(key_id)
        if stale:
            with self._database.writing() as session:
                session.execute(update(KeyBundle).where(*row).values(used=time.time()))
        return KeyInfo(key_id=key_id, params_id=bundle.params_id, bytes=bundle.bytes)

    def file(self, tenant_id: str, key_id: str) -> tuple[Path, str]:
        """Returns a local file that holds the bundle, to be mapped, and the name of its blob.

        Raises:
            UnknownKeyError: it was removed, or the store has lost it.
        """
        with self._database.reading() as session:
            bundle = session.get(KeyBundle, (tenant_id, key_id))
        if bundle is not None:
            try:
                return self._blobs.local(bundle.blob), bundle.blob
            except FileNotFoundError:
                self.forget(tenant_id, key_id, bundle.blob)
        raise UnknownKeyError(
            f"the evaluation keys {key_id} were removed after the job was accepted: upload them again"
        )

    def forget(self, tenant_id: str, key_id: str, blob: str) -> None:
        """Deletes the row of a bundle whose blob is missing or damaged, unless it has been uploaded again."""
        row = (KeyBundle.tenant_id == tenant_id, KeyBundle.key_id == key_id, KeyBundle.blob == blob)
        with self._database.writing() as session:
            session.execute(delete(KeyBundle).where(*row))
        self._blobs.delete(blob)
        _log.error("keys_lost", key_id=key_id, blob=blob)

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
        self._blobs.delete(bundle.blob)

    @contextmanager
    def _uploading(self, tenant_id: str, size: int) -> Iterator[None]:
        """Counts an upload of a tenant to this process while it lasts."""
        sizes = self._uploads.setdefault(tenant_id, [])
        if len(sizes) >= self._settings.uploads_per_tenant:
            raise BusyError(f"{len(sizes)} of your uploads are under way, the limit: try again when one is finished")
        sizes.append(size)
        try:
            yield
        finally:
            sizes.remove(size)
            if not sizes:
                self._uploads.pop(tenant_id, None)

    def _admit_upload(self, tenant_id: str, key_id: str) -> None:
        with self._database.reading() as session:
            self._admit(session, tenant_id, key_id, sum(self._uploads.get(tenant_id, ())))

    def _store(self, tenant_id: str, key_id: str, spool: Spool) -> KeyInfo:
        spool.file.flush()
        info = self._check(key_id, spool.file.fileno())
        blob = key_blob(tenant_id, key_id)
        unwanted = blob  # until its row is there
        try:
            with self._database.writing() as session:
                session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update())
                known = session.get(KeyBundle, (tenant_id, key_id))
                if known is not None and self._blobs.exists(known.blob):
                    known.used = time.time()
                    return info
                self._admit(session, tenant_id, key_id, info.bytes)
                evicted = self._evict(session, tenant_id, info)
                self._blobs.keep(spool, blob)
                now = time.time()
                session.merge(
                    KeyBundle(
                        tenant_id=tenant_id,
                        key_id=key_id,
                        params_id=info.params_id,
                        blob=blob,
                        bytes=info.bytes,
                        created=now,
                        used=now,
                    )
                )
                usage.add(session, tenant_id, received=info.bytes)
            unwanted = ""
        finally:
            if unwanted:
                self._blobs.delete(unwanted)
        for name in evicted:
            self._blobs.delete(name)
        return info

    def _check_header(self, head: bytes) -> Header:
        header = container.read_header(head)
        container.check_kind(header, Kind.EVALUATION_KEYS)
        key_bytes = self._key_bytes().get(header.params_id)
        if key_bytes is None:
            raise UnknownParamsError(
                f"no served model uses the parameter set {header.params_id}: use the one in the model's profile"
            )
        container.check_header(
            header,
            kind=Kind.EVALUATION_KEYS,
            params_id=header.params_id,
            key_id=None,
            payload_bytes=key_bytes - HEADER_BYTES,
        )
        return header

    def _check(self, key_id: str, descriptor: int) -> KeyInfo:
        size = os.fstat(descriptor).st_size
        header = self._check_header(os.pread(descriptor, HEADER_BYTES, 0))
        container.unpack(
            memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)),
            kind=Kind.EVALUATION_KEYS,
            params_id=header.params_id,
            key_id=None,
            payload_bytes=header.length,
        )
        if header.key_id != key_id:
            raise WrongKeyError(f"the bundle's id is {header.key_id}, but it was sent to /v2/keys/{key_id}")
        return KeyInfo(key_id=key_id, params_id=header.params_id, bytes=size)

    def _admit(self, session: Session, tenant_id: str, key_id: str, size: int) -> None:
        others = (KeyBundle.tenant_id == tenant_id, KeyBundle.key_id != key_id)
        held = session.scalar(select(func.coalesce(func.sum(KeyBundle.bytes), 0)).where(*others)) or 0
        limit = session.get_one(Tenant, tenant_id).key_bytes or self._settings.key_bytes_per_tenant
        if held + size > limit:
            raise QuotaExceededError(
                f"{held} of {limit} bytes of keys are used, {size} would be added: delete a bundle (DELETE /v2/keys/…)",
                retry_after=3600,
            )

    def _evict(self, session: Session, tenant_id: str, info: KeyInfo) -> list[str]:
        """Deletes rows until the new bundle fits into `storage_bytes`; returns the names of their blobs.

        The tenant's own bundles go first, then those of others that nobody has used for a day; never one that an unfinished job needs.

        Raises:
            BusyError: that is not enough.
        """
        needed = select(Job.id).where(
            Job.tenant_id == KeyBundle.tenant_id, Job.key_id == KeyBundle.key_id, Job.state.in_(UNFINISHED)
        )
        own = KeyBundle.tenant_id == tenant_id
        candidates = (
            select(KeyBundle)
            .where(~needed.exists(), or_(own, KeyBundle.used < time.time() - DAY_SECONDS))
            .order_by(case((own, 0), else_=1), KeyBundle.used)
        )
        total = (session.scalar(select(func.sum(KeyBundle.bytes))) or 0) + info.bytes
        evicted = []
        for bundle in session.scalars(candidates):
            if total <= self._settings.storage_bytes:
                break
            total -= bundle.bytes
            session.delete(bundle)
            evicted.append(bundle.blob)
        if total > self._settings.storage_bytes:
            raise BusyError(
                f"the store of evaluation keys is full ({self._settings.storage_bytes} bytes), and others use theirs: "
                "the operator can raise CIPHERSHIFT_STORAGE_BYTES"
            )
        session.flush()
        return evicted


def key_blob(tenant_id: str, key_id: str) -> str:
    """Returns a new name for a bundle's blob: no two uploads have the same, so that a deletion cannot hit a newer one."""
    # Both come from a request or a row: anything but hex digits could name a file outside the store.
    assert set(tenant_id + key_id) <= set("0123456789abcdef"), "routes accept hex digests only"
    return f"keys/{tenant_id}/{key_id}-{secrets.token_hex(4)}.keys"


def _unknown(key_id: str) -> UnknownKeyError:
    return UnknownKeyError(f"no evaluation keys {key_id} are stored here: upload them first")
