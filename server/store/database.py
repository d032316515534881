"""The SQL database: tenants, API keys, key bundles, jobs and job runners; SQLite by default, PostgreSQL by URL.

Tables are changed by migrations only (`migrations/`). Times are seconds since the epoch. Calls block: coroutines make them in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Connection,
    Double,
    Engine,
    ForeignKey,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ciphershift.errors import ConfigurationError, NotReadyError
from ciphershift.server.settings import masked

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
BUSY_SECONDS = 30.0


class Base(DeclarativeBase):
    """Tables of the service."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double(), int: BigInteger(), str: String()}


class Tenant(Base):
    """Owner of API keys, key bundles and jobs. Limits of its own override the service's."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[float]
    closed: Mapped[float | None]
    queries_per_day: Mapped[int | None]
    lookups_per_day: Mapped[int | None]
    key_bytes: Mapped[int | None]
    queue_depth: Mapped[int | None]
    requests_per_second: Mapped[float | None]
    turn: Mapped[float] = mapped_column(
        default=0.0, server_default="0"
    )  # look-ups served, in virtual time: see JobStore.claim


class ApiKey(Base):
    """A credential of a tenant: the SHA-256 of the secret, never the secret."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(8), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str] = mapped_column(String(64))  # separated by spaces
    created: Mapped[float]
    expires: Mapped[float | None]
    revoked: Mapped[float | None]


class KeyBundle(Base):
    """A tenant's evaluation keys, stored as a blob."""

    __tablename__ = "key_bundles"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    params_id: Mapped[str] = mapped_column(String(64))
    blob: Mapped[str] = mapped_column(
        String(160), server_default=""
    )  # one name per upload: a deletion cannot hit a newer blob
    bytes: Mapped[int]
    created: Mapped[float]
    used: Mapped[float] = mapped_column(index=True)


class Job(Base):
    """One inference, from its acceptance until its result expires. Its blobs are named after its id."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        Index(None, "tenant_id", "created"),
        Index(None, "tenant_id", "started"),
        Index(None, "state", "created"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    idempotency_key: Mapped[str | None] = mapped_column(String(64))
    body_sha256: Mapped[str] = mapped_column(String(64))

    model: Mapped[str] = mapped_column(String(128))
    model_version: Mapped[str] = mapped_column(String(128))
    model_digest: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    traceparent: Mapped[str | None] = mapped_column(String(64))  # of the request that made it, if it was traced
    images: Mapped[int]
    images_kept: Mapped[int] = mapped_column(
        default=0, server_default="0"
    )  # whose answers are stored, of an unfinished job

    state: Mapped[str] = mapped_column(String(16))
    created: Mapped[float]
    deadline: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]
    expires: Mapped[float | None]
    has_result: Mapped[bool]

    # A result is accepted only from the runner and attempt that the row names.
    runner_id: Mapped[str | None] = mapped_column(String(32), index=True)
    attempt: Mapped[int]
    cancel_requested: Mapped[bool]

    revision: Mapped[int]  # incremented by every change that the API shows
    layer: Mapped[str | None] = mapped_column(String(128))
    bootstraps_done: Mapped[int]
    bootstraps_total: Mapped[int]
    bootstraps_charged: Mapped[int] = mapped_column(default=0, server_default="0")  # to the tenant's turns
    images_done: Mapped[int]
    ready_at: Mapped[float | None]  # estimate from the progress so far

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None]
    seconds: Mapped[float | None]
    key_seconds: Mapped[float | None]


class RunnerLease(Base):
    """A process that evaluates jobs. If it stops renewing the lease, its jobs return to the queue."""

    __tablename__ = "runners"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires: Mapped[float]  # the process counts as lost after this time
    slots: Mapped[int]  # jobs that it evaluates at once; 0 while its workers start


class ModelState(Base):
    """An operator's decision about a model: not served, or loaded again at this time."""

    __tablename__ = "model_states"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    unloaded: Mapped[bool]
    loaded: Mapped[float]


class Usage(Base):
    """What a tenant used on one day (UTC), to bill by."""

    __tablename__ = "usage"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)  # as in 2026-11-28
    images: Mapped[int]
    lookups: Mapped[int]
    bytes_received: Mapped[int]
    bytes_sent: Mapped[int]


class AuditRecord(Base):
    """One administrative act: who did what to what, and when."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    time: Mapped[float] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(128))
    detail: Mapped[str]


class Database:
    """Connections to one database; safe to use from many threads."""

    def __init__(self, url: str) -> None:
        """Prepares an engine; the first connection is made on first use.

        Args:
            url: SQLAlchemy's, with a driver: ``sqlite:////path/file.db`` or ``postgresql+psycopg://…``.

        Raises:
            ConfigurationError: the URL cannot be parsed, or its driver is not installed.
        """
        self.url = url
        try:
            self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
            self._engine = self._make_engine()
        except (ArgumentError, ModuleNotFoundError) as error:
            raise ConfigurationError(
                f"the database cannot be used ({error}): set CIPHERSHIFT_DATABASE to an address like postgresql://user:password@host/name, "
                "and install its driver (pip install 'ciphershift[postgres]')"
            ) from None

    def _make_engine(self) -> Engine:
        if not self.is_sqlite:
            return create_engine(self.url, pool_pre_ping=True, pool_size=10, max_overflow=30, hide_parameters=True)
        folder = Path(make_url(self.url).database or "").parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {folder} cannot be made ({error.strerror}): set CIPHERSHIFT_STORAGE to a folder that can be written to"
            ) from None
        engine = create_engine(self.url, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is on disk when the block ends; SQLite runs one of them at a time."""
        writer = self._engine.execution_options(writes=True)
        with Session(writer, expire_on_commit=False) as session, session.begin():
            yield session

    @classmethod
    def open(cls, url: str) -> Self:
        """Returns a database that is ready for use. SQLite is migrated here; PostgreSQL must have been.

        Raises:
            NotReadyError: the database needs a migration first.
        """
        database = cls(url)
        if database.is_sqlite:
            database.migrate()
        database.check()
        return database

    def migrate(self, revision: str | None = None) -> str:
        """Migrates the tables to a revision, upwards or back, and returns it; several processes may do so at once.

        Args:
            revision: one that this release knows; by default this release's own.

        Raises:
            NotReadyError: the database does not answer, or is at a revision that this release does not know.
            ConfigurationError: this release does not know the wanted revision.
        """
        if revision is not None and revision not in _revisions():
            raise ConfigurationError(f"there is no revision {revision!r}: this release knows {', '.join(_revisions())}")
        with self._answering(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if not self.is_sqlite:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4271201)")  # one migration at a time
            found = _found(connection)
            if revision is not None and found is not None and _revisions().index(revision) < _revisions().index(found):
                command.downgrade(_config(connection), revision)
            else:
                command.upgrade(_config(connection), revision or "head")
        return revision or _revisions()[-1]

    def check(self) -> None:
        """Returns if the database is at this release's revision.

        Raises:
            NotReadyError: it is at another revision, or does not answer.
        """
        with self._answering(), self._engine.connect() as connection:
            found = _found(connection)
        wanted = _revisions()[-1]
        if found != wanted:
            raise NotReadyError(
                f"the database is at revision {found}, this release needs {wanted}: run ciphershift migrate"
            )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise NotReadyError(
                f"{masked(self.url)} does not answer ({str(error.orig).strip()}): start the database, or correct CIPHERSHIFT_DATABASE"
            ) from None

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


def _revisions() -> list[str]:
    """The revisions that this release knows, oldest first."""
    return [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]


def _found(connection: Connection) -> str | None:
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in _revisions():
        raise NotReadyError(
            f"the database is at revision {found}, which this release does not know (it knows {', '.join(_revisions())}): "
            "start the release that migrated it, or restore the backup from before; the newer release can go back "
            f"with ciphershift migrate --to {_revisions()[-1]}"
        )
    return found


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power failure
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that writes takes the lock at its start: upgrading a read lock can fail without waiting.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
