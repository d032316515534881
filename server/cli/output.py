"""How administrative commands print: a table or a sentence for people, or JSON for programs; each names the database it worked on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ciphershift.server.settings import masked

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def show_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], database: str, as_json: bool) -> None:
    """Prints records, those columns of each."""
    if as_json:
        typer.echo(json.dumps({"database": masked(database), "rows": list(rows)}))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    Console().print(table)
    say_database(database)


def show_done(sentence: str, database: str, as_json: bool, **values: Any) -> None:
    """Prints what was done."""
    if as_json:
        typer.echo(json.dumps({"database": masked(database), **values}))
        return
    typer.echo(sentence)
    say_database(database)


def say_database(database: str) -> None:
    """Names the database on stderr, so that standard output has the answer alone."""
    typer.echo(f"database: {masked(database)}", err=True)


def date(seconds: float | None) -> str | None:
    """Returns a time as text, by minutes in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(" ", "minutes")
