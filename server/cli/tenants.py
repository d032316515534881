"""`ciphershift tenants`: tenants, their API keys, limits and usage. Works on the database, whether a server runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ciphershift.errors import ConfigurationError
from ciphershift.server.cli.output import AsJson, date, show_done, show_rows
from ciphershift.server.settings import Settings, load_settings
from ciphershift.server.store import audit, erasure
from ciphershift.server.store import usage as usage_records
from ciphershift.server.store.audit import operator
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import ApiKey, Database
from ciphershift.server.store.tenants import LIMITS, Scope, TenantStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tenants and their API keys.\n\nWorks on the database, whether a server runs or not.\n\n"
    "Example:\n\n  ciphershift tenants create clinic && ciphershift tenants key clinic",
)

Name = Annotated[str, typer.Argument(help="The tenant's name.")]
Queries = Annotated[int | None, typer.Option(min=1, help="Images in 24 hours.", show_default="the service's")]
Lookups = Annotated[int | None, typer.Option(min=1, help="Table look-ups in 24 hours.", show_default="the service's")]
KeyBytes = Annotated[int | None, typer.Option(min=1, help="Bytes of evaluation keys.", show_default="the service's")]
Depth = Annotated[int | None, typer.Option(min=0, help="Jobs that may wait.", show_default="the service's")]
Rate = Annotated[float | None, typer.Option(min=0.1, help="Requests per second.", show_default="the service's")]


@app.command()
def create(
    name: Name,
    queries_per_day: Queries = None,
    lookups_per_day: Lookups = None,
    key_bytes: KeyBytes = None,
    queue_depth: Depth = None,
    requests_per_second: Rate = None,
    as_json: AsJson = False,
) -> None:
    """Create a tenant.

    Example:

      ciphershift tenants create clinic --queries-per-day 1000
    """
    with _database() as database:
        TenantStore(database).create(
            name,
            operator(),
            queries_per_day=queries_per_day,
            lookups_per_day=lookups_per_day,
            key_bytes=key_bytes,
            queue_depth=queue_depth,
            requests_per_second=requests_per_second,
        )
        sentence = f"created {name}; make an API key for it: ciphershift tenants key {name}"
        show_done(sentence, database.url, as_json, created=name)


@app.command("set")
def set_limits(
    name: Name,
    queries_per_day: Queries = None,
    lookups_per_day: Lookups = None,
    key_bytes: KeyBytes = None,
    queue_depth: Depth = None,
    requests_per_second: Rate = None,
    default: Annotated[list[str] | None, typer.Option(help="A limit to give back to the service's value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change limits of a tenant; running servers follow with the next request.

    Examples:

      ciphershift tenants set clinic --queries-per-day 500

      ciphershift tenants set clinic --default queries-per-day
    """
    given = (queries_per_day, lookups_per_day, key_bytes, queue_depth, requests_per_second)
    limits: dict[str, float | None] = {
        limit: value for limit, value in zip(LIMITS, given, strict=True) if value is not None
    }
    for limit in default or []:
        if limit.replace("-", "_") not in LIMITS:
            known = ", ".join(LIMITS).replace("_", "-")
            raise ConfigurationError(f"there is no limit {limit!r}: give one of {known}")
        limits[limit.replace("-", "_")] = None
    if not limits:
        raise ConfigurationError("nothing to set: give at least one limit (ciphershift tenants set --help)")
    with _database() as database:
        TenantStore(database).set(name, operator(), **limits)
        values = ", ".join(f"{limit} = {'default' if value is None else value}" for limit, value in limits.items())
        show_done(f"{name}: {values}", database.url, as_json, tenant=name, limits=limits)


@app.command()
def close(
    name: Name,
    erase: Annotated[bool, typer.Option(help="Delete its keys, images, answers and jobs, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """End the service of a tenant at once: its API keys are refused, its jobs canceled.

    Examples:

      ciphershift tenants close clinic

      ciphershift tenants close clinic --erase
    """
    with _database() as database:
        TenantStore(database).close(name, operator())
        jobs = bundles = 0
        if erase:
            jobs, bundles = erasure.erase(database, Blobs(load_settings()), name, operator())
        sentence = f"closed {name}" + (f"; deleted {jobs} jobs and {bundles} bundles of keys" if erase else "")
        show_done(sentence, database.url, as_json, closed=name, erased=erase, jobs=jobs, bundles=bundles)


@app.command()
def key(
    name: Name,
    scope: Annotated[list[Scope], typer.Option(help="What the key may do; may be given several times.")] = [  # noqa: B006
        Scope.INFER,
        Scope.KEYS,
    ],
    days: Annotated[float | None, typer.Option(min=0, help="Days until it expires.", show_default="never")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and print it. It is shown only once.

    Examples:

      ciphershift tenants key clinic --days 90

      ciphershift tenants key operator --scope admin
    """
    with _database() as database:
        seconds = None if days is None else days * 86400
        text = TenantStore(database).make_key(name, scope, operator(), seconds=seconds)
        show_done(text, database.url, as_json, tenant=name, key=text)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The eight digits after csk_.")], as_json: AsJson = False
) -> None:
    """Revoke an API key.

    Example:

      ciphershift tenants revoke 1f2e3d4c
    """
    with _database() as database:
        TenantStore(database).revoke(key_id, operator())
        show_done(f"revoked {key_id}", database.url, as_json, revoked=key_id)


@app.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List all tenants and their API keys, without the secrets.

    Example:

      ciphershift tenants list
    """
    rows = []
    with _database() as database:
        for tenant, keys in TenantStore(database).all():
            about = {"tenant": tenant.name} | {limit: getattr(tenant, limit) for limit in LIMITS}
            about["closed"] = date(tenant.closed)
            listed: list[ApiKey | None] = [*keys] or [None]
            for made in listed:
                rows.append(
                    about
                    | {
                        "api_key": made and made.id,
                        "scopes": made and made.scopes,
                        "expires": made and date(made.expires),
                        "revoked": made and date(made.revoked),
                    }
                )
        columns = ["tenant", *LIMITS, "closed", "api_key", "scopes", "expires", "revoked"]
        show_rows(rows, columns, database.url, as_json)


@app.command()
def usage(
    name: Annotated[str | None, typer.Argument(help="The tenant's name.", show_default="all")] = None,
    days: Annotated[int, typer.Option(min=1, help="Days up to today.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show what tenants used by day (UTC): images, look-ups, and bytes of images, keys and answers.

    Examples:

      ciphershift tenants usage clinic

      ciphershift tenants usage --days 31 --json
    """
    today = datetime.now(UTC).date()
    first = today - timedelta(days=days - 1)
    columns = ["tenant", "day", "images", "lookups", "bytes_received", "bytes_sent"]
    with _database() as database:
        with database.reading() as session:
            records = usage_records.of(session, name, first.isoformat(), today.isoformat())
        rows = [
            {"tenant": tenant} | {column: getattr(record, column) for column in columns[1:]}
            for tenant, record in records
        ]
        show_rows(rows, columns, database.url, as_json)


@app.command("audit")
def show_audit(
    limit: Annotated[int, typer.Option(min=1, help="Records, newest first.")] = 100, as_json: AsJson = False
) -> None:
    """Show administrative acts: who did what, and when.

    Example:

      ciphershift tenants audit --limit 20
    """
    columns = ["time", "actor", "action", "target", "detail"]
    with _database() as database:
        with database.reading() as session:
            records = audit.newest(session, limit)
        rows = [
            {column: getattr(record, column) for column in columns} | {"time": date(record.time)} for record in records
        ]
        show_rows(rows, columns, database.url, as_json)


@contextmanager
def _database() -> Iterator[Database]:
    settings: Settings = load_settings()
    database = Database.open(settings.database_url)
    try:
        yield database
    finally:
        database.close()
