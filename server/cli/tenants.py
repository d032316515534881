"""`ciphershift tenants`: tenants and their API keys. Works on the database, whether a server runs or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ciphershift.server.settings import load_settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tenants and their API keys.\n\nWorks on the database, whether a server runs or not.\n\n"
    "Example:\n\n  ciphershift tenants create clinic && ciphershift tenants key clinic",
)

Name = Annotated[str, typer.Argument(help="The tenant's name.")]


@app.command()
def create(
    name: Name,
    queries_per_day: Annotated[
        int | None, typer.Option(min=1, help="Images in 24 hours.", show_default="the service's")
    ] = None,
    key_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes of evaluation keys.", show_default="the service's")
    ] = None,
) -> None:
    """Create a tenant.

    Example:

      ciphershift tenants create clinic --queries-per-day 1000
    """
    _store().create(name, queries_per_day=queries_per_day, key_bytes=key_bytes)
    typer.echo(f"created {name}; make an API key for it: ciphershift tenants key {name}")


@app.command()
def key(
    name: Name,
    scope: Annotated[list[Scope], typer.Option(help="What the key may do; may be given several times.")] = [  # noqa: B006
        Scope.INFER,
        Scope.KEYS,
    ],
    days: Annotated[float | None, typer.Option(min=0, help="Days until it expires.", show_default="never")] = None,
) -> None:
    """Make an API key and print it. It is shown only once.

    Examples:

      ciphershift tenants key clinic --days 90

      ciphershift tenants key operator --scope admin
    """
    typer.echo(_store().make_key(name, scope, seconds=None if days is None else days * 86400))


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The eight digits after csk_.")]) -> None:
    """Revoke an API key.

    Example:

      ciphershift tenants revoke 1f2e3d4c
    """
    _store().revoke(key_id)
    typer.echo(f"revoked {key_id}")


@app.command("list")
def list_tenants() -> None:
    """List all tenants and their API keys, without the secrets.

    Example:

      ciphershift tenants list
    """
    table = Table("tenant", "queries per day", "key bytes", "API key", "scopes", "expires", "revoked")
    for tenant, keys in _store().all():
        limits = [str(limit or "default") for limit in (tenant.queries_per_day, tenant.key_bytes)]
        if not keys:
            table.add_row(tenant.name, *limits)
        for key in keys:
            table.add_row(tenant.name, *limits, key.id, key.scopes, _date(key.expires), _date(key.revoked))
    Console().print(table)


def _store() -> TenantStore:
    database = Database.open(load_settings().database_url)
    return TenantStore(database)


def _date(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(" ", "minutes")
