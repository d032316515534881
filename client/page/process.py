"""One run of the page: a server if none is named, the page's own socket, the browser, the end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import webbrowser
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import typer
import uvicorn
from rich.console import Console

from ciphershift.client.keystore import Keystore
from ciphershift.client.local_server import local_server
from ciphershift.client.page.app import Page, create_app
from ciphershift.client.page.plaintext import ZOO
from ciphershift.client.page.session import Desk
from ciphershift.errors import ConfigurationError

HOST = "127.0.0.1"
OWN_SETTINGS: dict[str, Any] = {
    "database": "",
    "tls_certificate": "",
    "tls_key": "",
}  # never those of a server that is run in earnest


def serve(
    server: str | None,
    *,
    model: str | None,
    ca_file: Path | None,
    models: Path | None,
    port: int,
    show: bool,
    keystore: Keystore,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        server: address of the inference server; None starts one on this machine.
        model: that is chosen at first.
        ca_file: certificates of the authority behind the server.
        models: folder of networks, for the server that is started here and for plaintext answers.
        port: of the page; 0 takes a free one.
        show: open it in a browser.
        keystore: where keys rest.

    Raises:
        ConfigurationError: the port is taken, or the server does not start.
    """
    signal.signal(signal.SIGTERM, _end)  # by leaving the blocks below, so that the server started here ends, too
    networks = models or ZOO
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(port))
        url = server
        if url is None:
            with Console(stderr=True).status("starting a server on this machine"):
                url = stack.enter_context(local_server(models=networks, **OWN_SETTINGS)).url
        desk = Desk(url, keystore=keystore, ca_file=ca_file)
        token = secrets.token_urlsafe(32)
        page = Page(desk, models=networks, preferred=model, is_embedded=server is None)
        config = uvicorn.Config(
            create_app(page, desk, token), log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=3
        )
        address = f"http://{HOST}:{listener.getsockname()[1]}/#token={token}"
        typer.echo(f"the page is at {address}\nfor you alone: the address holds its key. Ctrl-C ends it.")
        if show and _has_screen():
            webbrowser.open(address)  # it may connect at once: the socket listens
        with suppress(KeyboardInterrupt):
            _Server(config, desk).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends what is under way as soon as it is told to end: an answer that is waited for would hold it up."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._desk.stop)
        super().handle_exit(sig, frame)


def _has_screen() -> bool:
    """Else a browser for the terminal would take this one over."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigurationError(
            f"port {port} cannot be used ({error.strerror}): choose another, or leave it out"
        ) from None


def _end(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(0)
