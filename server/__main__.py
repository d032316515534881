"""`python -m server`: serves a folder of models until it is told to stop; and what an operator does around that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from he_layers.crypto.errors import HEServiceError
from server import process, repository_command, tenants_command
from server.app import create_app
from server.database import Database
from server.settings import Settings, load_settings

cli = typer.Typer(add_completion=False, rich_markup_mode="rich")
cli.add_typer(tenants_command.cli, name="tenants")
cli.add_typer(repository_command.cli, name="repository")

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one.", show_default="8000")]
Models = Annotated[Path | None, typer.Option(help="Folder of Programs.", show_default="the shipped zoo")]
PrintSettings = Annotated[bool, typer.Option("--print-settings", help="Print the effective settings and end.")]


@cli.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Serve encrypted inference. Without a command: serve.

    A server asks for API keys; CIPHERSHIFT_OPEN=true opens it for a demonstration on one machine.

    Examples:

      CIPHERSHIFT_OPEN=true python -m server

      python -m server tenants create clinic && python -m server tenants key clinic && python -m server
    """
    if context.invoked_subcommand is None:
        serve()


@cli.command()
def serve(host: Host = None, port: Port = None, models: Models = None, print_settings: PrintSettings = False) -> None:
    """Serve encrypted inference.

    Every setting can also be given as an environment variable, CIPHERSHIFT_<NAME>; options win.

    Examples:

      CIPHERSHIFT_OPEN=true python -m server

      CIPHERSHIFT_ENGINE="local://?workers=2&threads=4" python -m server serve --port 9000
    """
    settings = load_settings(host=host, port=port, models=models)
    if print_settings:
        show(settings)
        return
    if settings.open:
        typer.echo(f"open: no API keys, everybody who reaches {settings.host} may use this server", err=True)
    process.run(lambda: create_app(settings), settings)


@cli.command()
def worker(host: Host = None, port: Port = None, models: Models = None) -> None:
    """Compute jobs that `serve` processes with CIPHERSHIFT_ENGINE=queue:// accept; serve health and metrics alone.

    Database, storage and models must be those of the serving processes.

    Example:

      CIPHERSHIFT_DATABASE=postgresql://… CIPHERSHIFT_STORAGE=s3://… python -m server worker --port 8001
    """
    settings = load_settings(host=host, port=port, models=models)
    if settings.engine_url.scheme == "queue":
        raise typer.BadParameter("a worker needs an engine of its own: set CIPHERSHIFT_ENGINE to local:// or ray://")
    process.run(lambda: create_app(settings, api=False), settings)


@cli.command()
def migrate() -> None:
    """Bring the database to this release's form. SQLite needs no such command: it is migrated at every start.

    Example:

      CIPHERSHIFT_DATABASE=postgresql://… python -m server migrate
    """
    database = Database(load_settings().database_url)
    database.migrate()
    database.close()


@cli.command("settings")
def show_settings() -> None:
    """Print the effective settings, without passwords.

    Example:

      CIPHERSHIFT_PORT=9000 python -m server settings
    """
    show(load_settings())


def show(settings: Settings) -> None:
    """Prints settings as the environment variables that would give them."""
    for name, value in settings.printable().items():
        typer.echo(f"CIPHERSHIFT_{name.upper()}={value}")


if __name__ == "__main__":
    try:
        cli()
    except HEServiceError as error:
        typer.echo(error.message, err=True)
        raise SystemExit(1) from None
