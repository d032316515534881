"""`python -m server`: serves a folder of models until it is told to stop."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from server.app import create_app
from server.settings import Settings

cli = typer.Typer(add_completion=False, rich_markup_mode="rich")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [default: 8000].")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of Programs [default: the shipped zoo].")] = None,
) -> None:
    """Serve encrypted inference.

    Every setting can also be given as an environment variable, CIPHERSHIFT_<NAME>; options win.

    Examples:

      python -m server

      CIPHERSHIFT_THREADS=8 python -m server --port 9000
    """
    given: dict[str, Any] = {"host": host, "port": port, "models": models}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    app = create_app(settings)
    if not app.state.service.repository:
        typer.echo(f"no models in {settings.models}: every request will be answered with unknown_model", err=True)
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning")
    listener = config.bind_socket()
    # Connections inherit it; else an answer of two segments waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    typer.echo(f"listening on http://{settings.host}:{listener.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    cli()
