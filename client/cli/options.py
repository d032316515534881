"""Options that the client's commands share, and the client that is made from them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ciphershift.client.client import Client
from ciphershift.client.keystore import Keystore

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(envvar="CIPHERSHIFT_URL", help="Address of the server.", show_envvar=True)]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of the model; may be left out if the server has only one.")
]
CaFile = Annotated[
    Path | None,
    typer.Option(envvar="CIPHERSHIFT_CA_FILE", help="File with the certificates of your server's authority."),
]
Timeout = Annotated[
    float | None, typer.Option(min=0.0, help="Seconds to wait for the server.", show_default="no limit")
]
RetryTimeout = Annotated[
    float,
    typer.Option(
        min=0.0, help="Seconds for which a server that is busy, restarts or cannot be reached is asked again."
    ),
]
DEFAULT_RETRY_TIMEOUT = 10.0
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Images = Annotated[
    list[Path],
    typer.Argument(
        help="Image files: light on dark, of the model's own size. Or .csv files: rows of a model with named features; "
        "of a model that takes sequences, one sequence each.",
        exists=True,
        dir_okay=False,
    ),
]


def open_client(
    url: str, model: str | None, ca_file: Path | None, retry_timeout: float = DEFAULT_RETRY_TIMEOUT
) -> Client:
    """Returns a client that asks for the passphrase of encrypted keys if stdin is a terminal."""
    return Client(url, model=model, ca_file=ca_file, keystore=Keystore(ask=ask()), retry_timeout=retry_timeout)


def ask() -> Callable[[], str] | None:
    """Returns a prompt for the passphrase, or None where stdin is not a terminal."""
    return (lambda: str(typer.prompt("Passphrase", hide_input=True, err=True))) if sys.stdin.isatty() else None
