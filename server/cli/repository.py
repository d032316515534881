"""`ciphershift repository`: list, load and unload models. Works on folder and database; running servers follow within seconds."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ciphershift.server.repository import Repository
from ciphershift.server.settings import load_settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.model_states import ModelStates

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, load and unload models.\n\nRunning servers follow within seconds.\n\n"
    "Example:\n\n  ciphershift repository index",
)

Name = Annotated[str, typer.Argument(help="The model's name, the same as its folder's.")]


@app.command()
def index() -> None:
    """List every model of the folder: whether it is served, and if not, why.

    Example:

      CIPHERSHIFT_MODELS=./models ciphershift repository index
    """
    repository, states = _open()
    states.follow()
    table = Table("model", "version", "parameters", "look-ups", "state", "reason")
    for name, entry in repository.entries.items():
        program = entry.model and entry.model.program
        about = [program.version, program.params, str(program.lookups)] if program else ["", "", ""]
        table.add_row(name, *about, "READY" if program else "UNAVAILABLE", entry.reason)
    Console().print(table)


@app.command()
def load(name: Name) -> None:
    """Load a model from its folder and serve it.

    Example:

      ciphershift repository load mnist-she
    """
    version = _open()[1].load(name).program.version
    typer.echo(f"{name} version {version} is served")


@app.command()
def unload(name: Name) -> None:
    """Take a model out of service; accepted jobs are still evaluated.

    Example:

      ciphershift repository unload mnist-she
    """
    _open()[1].unload(name)
    typer.echo(f"{name} is no longer served")


def _open() -> tuple[Repository, ModelStates]:
    settings = load_settings()
    database = Database.open(settings.database_url)
    repository = Repository(settings)
    return repository, ModelStates(database, repository)
