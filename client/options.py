"""Options that the client's commands share, and the client that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option(envvar="CIPHERSHIFT_URL", help="Where the server listens.", show_envvar=True)]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help="Model to use; not needed if the server has one only.")
]
CaFile = Annotated[
    Path | None,
    typer.Option(envvar="CIPHERSHIFT_CA_FILE", help="Certificates of the authority behind a server of your own."),
]
Timeout = Annotated[float | None, typer.Option(min=0.0, help="Seconds to wait for the server.", show_default="no end")]
Pictures = Annotated[
    list[Path],
    typer.Argument(help="Pictures: white on black, of the model's own size.", exists=True, dir_okay=False),
]
