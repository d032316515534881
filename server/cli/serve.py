"""`ciphershift serve`, `worker`, `migrate` and `settings`: run a server process, migrate its database, show its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ciphershift.server import process
from ciphershift.server.app import create_app
from ciphershift.server.cli.output import AsJson, show_done
from ciphershift.server.settings import Settings, load_settings
from ciphershift.server.store.database import Database

app = typer.Typer(rich_markup_mode="rich")

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one.", show_default="8000")]
Models = Annotated[Path | None, typer.Option(help="Folder of Programs.", show_default="the shipped zoo")]
Page = Annotated[
    bool | None, typer.Option("--page/--no-page", help="Serve the page to draw on at /page/.", show_default="no page")
]
PrintSettings = Annotated[bool, typer.Option("--print-settings", help="Print the effective settings and exit.")]


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    models: Models = None,
    page: Page = None,
    print_settings: PrintSettings = False,
) -> None:
    """Serve encrypted inference.

    Every setting can also be given as an environment variable, CIPHERSHIFT_<NAME>; options override it.

    Examples:

      CIPHERSHIFT_OPEN=true ciphershift serve

      CIPHERSHIFT_ENGINE="local://?workers=2&threads=4" ciphershift serve --port 9000
    """
    settings = load_settings(host=host, port=port, models=models, page=page)
    if print_settings:
        show(settings)
        return
    if settings.open:
        typer.echo(f"open: no API keys, anybody who can reach {settings.host} may use this server", err=True)
    process.run(lambda: create_app(settings), settings)


@app.command()
def worker(host: Host = None, port: Port = None, models: Models = None) -> None:
    """Evaluate jobs that `serve` processes with CIPHERSHIFT_ENGINE=queue:// accept; serve health and metrics only.

    Database, storage and models must be those of the serving processes.

    Example:

      CIPHERSHIFT_DATABASE=postgresql://… CIPHERSHIFT_STORAGE=s3://… ciphershift worker --port 8001
    """
    settings = load_settings(host=host, port=port, models=models)
    if settings.engine_url.scheme == "queue":
        raise typer.BadParameter("a worker needs an engine of its own: set CIPHERSHIFT_ENGINE to local:// or ray://")
    process.run(lambda: create_app(settings, api=False), settings)


@app.command()
def migrate(
    to: Annotated[str | None, typer.Option(help="Revision to go to, also back.", show_default="this release's")] = None,
    as_json: AsJson = False,
) -> None:
    """Migrate the database to this release's revision. SQLite is migrated at every start.

    Examples:

      CIPHERSHIFT_DATABASE=postgresql://… ciphershift migrate

      ciphershift migrate --to 0001
    """
    database = Database(load_settings().database_url)
    revision = database.migrate(to)
    database.close()
    show_done(f"the database is at revision {revision}", database.url, as_json, revision=revision)


@app.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Print the effective settings, without passwords.

    Example:

      CIPHERSHIFT_PORT=9000 ciphershift settings
    """
    show(load_settings(), as_json)


def show(settings: Settings, as_json: bool = False) -> None:
    """Prints settings as the environment variables that would give them."""
    variables = {f"CIPHERSHIFT_{name.upper()}": value for name, value in settings.printable().items()}
    if as_json:
        typer.echo(json.dumps(variables))
        return
    for name, value in variables.items():
        typer.echo(f"{name}={value}")
