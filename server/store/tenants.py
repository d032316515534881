"""Tenants and their API keys: `csk_<id>_<secret>`, of which the SHA-256 of the secret is kept.

The secret has 256 random bits, so a plain hash is enough: it cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ciphershift.errors import ConfigurationError, ForbiddenError, UnauthorizedError
from ciphershift.server.store import audit
from ciphershift.server.store.database import ApiKey, Database, Job, Tenant
from ciphershift.server.store.states import UNFINISHED

LIMITS = ("queries_per_day", "lookups_per_day", "key_bytes", "queue_depth", "requests_per_second")
LOCAL = "local"  # the tenant of a server without API keys
_KEY = re.compile(r"csk_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Scope(StrEnum):
    """What an API key may do."""

    INFER = "infer"
    KEYS = "keys"
    ADMIN = "admin"  # the model repository, and everything that the other scopes allow


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """The tenant of a request and the scopes of its API key."""

    tenant_id: str
    name: str
    scopes: frozenset[Scope]
    key_id: str = ""
    requests_per_second: float | None = None

    @property
    def actor(self) -> str:
        """The caller's name in the audit trail."""
        return f"tenant:{self.name}/{self.key_id}"

    def require(self, scope: Scope) -> None:
        """Returns if the caller has a scope. Raises ForbiddenError."""
        if not self.scopes & {scope, Scope.ADMIN}:
            raise ForbiddenError(f"the API key lacks the scope {scope}: make one that has it (ciphershift tenants key)")


class TenantStore:
    """All tenants. Every method blocks for a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, actor: str = "service", **limits: float | None) -> Tenant:
        """Creates a tenant.

        Args:
            name: of the tenant.
            actor: for the audit trail.
            limits: of LIMITS; those that are left out are the service's.

        Raises:
            ConfigurationError: the name is taken or not valid.
        """
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot name a tenant: use letters, digits, dots, hyphens and underscores, at most 64"
            )
        tenant = Tenant(id=uuid.uuid4().hex, name=name, created=time.time(), turn=0.0, **limits)
        try:
            with self._database.writing() as session:
                session.add(tenant)
                audit.record(session, actor, "tenant.create", name, **limits)
        except IntegrityError:
            raise ConfigurationError(f"a tenant {name!r} exists already: choose another name") from None
        return tenant

    def set(self, name: str, actor: str = "service", **limits: float | None) -> Tenant:
        """Changes limits of a tenant; None gives the service's back.

        Raises:
            ConfigurationError: there is no such tenant.
        """
        with self._database.writing() as session:
            tenant = _named(session, name)
            for limit, value in limits.items():
                setattr(tenant, limit, value)
            changed = {limit: "default" if value is None else value for limit, value in limits.items()}
            audit.record(session, actor, "tenant.set", name, **changed)
        return tenant

    def close(self, name: str, actor: str = "service") -> Tenant:
        """Ends the service of a tenant: its API keys are no longer valid and its waiting jobs are canceled.

        Raises:
            ConfigurationError: there is no such tenant.
        """
        with self._database.writing() as session:
            tenant = _named(session, name)
            now = time.time()
            tenant.closed = tenant.closed or now
            own = (Job.tenant_id == tenant.id, Job.state.in_(UNFINISHED))
            session.execute(
                update(Job).where(*own).values(cancel_requested=True, deadline=now, revision=Job.revision + 1)
            )
            audit.record(session, actor, "tenant.close", name)
        return tenant

    def make_key(
        self, name: str, scopes: Sequence[Scope], actor: str = "service", *, seconds: float | None = None
    ) -> str:
        """Returns a new API key of a tenant; the text is not stored.

        Args:
            name: the tenant's.
            scopes: what the key may do.
            actor: for the audit trail.
            seconds: until it expires; None for never.

        Raises:
            ConfigurationError: there is no such tenant, or it is closed.
        """
        secret = secrets.token_urlsafe(32)
        now = time.time()
        with self._database.writing() as session:
            tenant = _named(session, name)
            if tenant.closed is not None:
                raise ConfigurationError(f"tenant {name!r} is closed: create another one")
            key = ApiKey(
                id=secrets.token_hex(4),
                tenant_id=tenant.id,
                secret_sha256=_sha256(secret),
                scopes=" ".join(sorted(scopes)),
                created=now,
                expires=None if seconds is None else now + seconds,
            )
            session.add(key)
            audit.record(session, actor, "key.make", f"{name}/{key.id}", scopes=key.scopes, seconds=seconds)
        return f"csk_{key.id}_{secret}"

    def revoke(self, key_id: str, actor: str = "service") -> None:
        """Revokes an API key by its id (the eight digits after csk_). Raises ConfigurationError if there is none."""
        with self._database.writing() as session:
            key = session.get(ApiKey, key_id)
            if key is None:
                raise ConfigurationError(f"there is no API key {key_id!r}: ciphershift tenants list shows them")
            key.revoked = key.revoked or time.time()
            audit.record(session, actor, "key.revoke", key_id)

    def all(self) -> list[tuple[Tenant, list[ApiKey]]]:
        """Returns all tenants with their keys, by name."""
        with self._database.reading() as session:
            keys = session.scalars(select(ApiKey).order_by(ApiKey.created)).all()
            tenants = session.scalars(select(Tenant).order_by(Tenant.name)).all()
        return [(tenant, [key for key in keys if key.tenant_id == tenant.id]) for tenant in tenants]

    def open(self) -> Caller:
        """Returns the tenant of a server without API keys, created if it is missing. Nobody is an administrator there."""
        with self._database.reading() as session:
            tenant = session.scalar(select(Tenant).where(Tenant.name == LOCAL))
        if tenant is None:
            try:
                tenant = self.create(LOCAL)
            except ConfigurationError:  # another process has created it
                return self.open()
        return Caller(tenant_id=tenant.id, name=LOCAL, scopes=frozenset({Scope.INFER, Scope.KEYS}))

    def authenticate(self, authorization: str | None) -> Caller:
        """Returns the caller that an Authorization header names.

        Raises:
            UnauthorizedError: it names none; the message does not say why.
        """
        scheme, _, text = (authorization or "").partition(" ")
        match = _KEY.fullmatch(text.strip())
        if scheme.lower() == "bearer" and match is not None:
            with self._database.reading() as session:
                found = session.execute(
                    select(ApiKey, Tenant).join(Tenant, Tenant.id == ApiKey.tenant_id).where(ApiKey.id == match[1])
                ).one_or_none()
            if found is not None:
                key, tenant = found
                valid = (
                    tenant.closed is None and key.revoked is None and (key.expires is None or key.expires > time.time())
                )
                if hmac.compare_digest(key.secret_sha256, _sha256(match[2])) and valid:
                    scopes = frozenset(map(Scope, key.scopes.split()))
                    return Caller(
                        tenant_id=tenant.id,
                        name=tenant.name,
                        scopes=scopes,
                        key_id=key.id,
                        requests_per_second=tenant.requests_per_second,
                    )
        raise UnauthorizedError("send a valid API key: Authorization: Bearer csk_…")


def _named(session: Session, name: str) -> Tenant:
    tenant = session.scalar(select(Tenant).where(Tenant.name == name).with_for_update())
    if tenant is None:
        raise ConfigurationError(f"there is no tenant {name!r}: make it first (ciphershift tenants create {name})")
    return tenant


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
