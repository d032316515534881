"""`ciphershift repository`: list, load and unload models. Works on folder and database; running servers follow within seconds."""

from __future__ import annotations

from typing import Annotated

import typer

from ciphershift.server.cli.output import AsJson, show_done, show_rows
from ciphershift.server.repository import Repository
from ciphershift.server.settings import load_settings
from ciphershift.server.store.audit import operator
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
def index(as_json: AsJson = False) -> None:
    """List every model of the folder: whether it is served, and if not, why.

    Example:

      CIPHERSHIFT_MODELS=./models ciphershift repository index
    """
    repository, states, database = _open()
    states.follow()
    rows = []
    for name, entry in repository.entries.items():
        program = entry.model and entry.model.program
        rows.append(
            {
                "model": name,
                "version": program and program.version,
                "parameters": entry.model and entry.model.params.name,
                "lookups": program and program.lookups,
                "quota": entry.model and entry.model.quota and entry.model.quota.answers,
                "state": "READY" if program else "UNAVAILABLE",
                "reason": entry.reason,
            }
        )
    show_rows(rows, ["model", "version", "parameters", "lookups", "quota", "state", "reason"], database.url, as_json)


@app.command()
def load(name: Name, as_json: AsJson = False) -> None:
    """Load a model from its folder and serve it.

    Example:

      ciphershift repository load mnist-she
    """
    _, states, database = _open()
    version = states.load(name, operator()).program.version
    show_done(f"{name} version {version} is served", database.url, as_json, model=name, version=version)


@app.command()
def unload(name: Name, as_json: AsJson = False) -> None:
    """Take a model out of service; accepted jobs are still evaluated.

    Example:

      ciphershift repository unload mnist-she
    """
    _, states, database = _open()
    states.unload(name, operator())
    show_done(f"{name} is no longer served", database.url, as_json, model=name)


def _open() -> tuple[Repository, ModelStates, Database]:
    settings = load_settings()
    database = Database.open(settings.database_url)
    repository = Repository(settings)
    return repository, ModelStates(database, repository), database
