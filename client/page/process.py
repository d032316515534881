"""Runs the page: starts a server if none is given, listens, opens the browser, and cleans up."""

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
from ciphershift.client.page.session import PageSession
from ciphershift.errors import ConfigurationError

HOST = "127.0.0.1"
# Do not inherit the settings of a production server.
OWN_SETTINGS: dict[str, Any] = {"database": "", "tls_certificate": "", "tls_key": ""}


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
        model: the one that is selected at first.
        ca_file: certificates of the authority behind the server.
        models: folder of networks, for the server that is started here and for evaluation in the clear.
        port: of the page; 0 takes a free one.
        show: open it in a browser.
        keystore: where keys are stored.

    Raises:
        ConfigurationError: the port is taken, or the server does not start.
    """
    signal.signal(signal.SIGTERM, _end)  # leaves the blocks below, which stops the server that was started here
    networks = models or ZOO
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(port))
        url, api_key = server, None
        if url is None:
            with Console(stderr=True).status("starting a server on this machine"):
                own = stack.enter_context(local_server(models=networks, tenant="page", **OWN_SETTINGS))
            url, api_key = own.url, own.api_key
        session = PageSession(url, keystore=keystore, ca_file=ca_file, api_key=api_key)
        token = secrets.token_urlsafe(32)
        page = Page(session, models=networks, preferred=model, is_embedded=server is None)
        config = uvicorn.Config(
            create_app(page, session, token),
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=3,
        )
        address = f"http://{HOST}:{listener.getsockname()[1]}/#token={token}"
        typer.echo(
            f"the page is at {address}\nKeep the address to yourself: it contains the page's token. Ctrl-C ends the page."
        )
        if show and _has_screen():
            webbrowser.open(address)  # it may connect at once: the socket is listening
        with suppress(KeyboardInterrupt):
            _Server(config, session).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Stops runs as soon as a signal arrives; their open answers would delay the exit."""

    def __init__(self, config: uvicorn.Config, session: PageSession) -> None:
        super().__init__(config)
        self._session = session

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._session.stop)
        super().handle_exit(sig, frame)


def _has_screen() -> bool:
    """Without a screen, a text browser would take over this terminal."""
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
