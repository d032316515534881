"""Runs the page: starts a server if none is given, listens, opens the browser, and cleans up."""

from __future__ import annotations

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

from ciphershift.client._transport import Address
from ciphershift.client.client import API_KEY_VARIABLE
from ciphershift.client.local_server import local_server
from ciphershift.client.page.app import create_app
from ciphershift.client.page.plaintext import ZOO
from ciphershift.errors import ConfigurationError

HOST = "127.0.0.1"
# Do not inherit the settings of a production server.
OWN_SETTINGS: dict[str, Any] = {"database": "", "tls_certificate": "", "tls_key": "", "page": False}


def serve(
    server: str | None,
    *,
    model: str | None,
    ca_file: Path | None,
    models: Path | None,
    port: int,
    show: bool,
    onnxruntime: Path | None = None,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        server: address of the inference server; None starts one on this machine.
        model: the one that is selected at first.
        ca_file: certificates of the authority behind the server.
        models: folder of networks, for the server that is started here and for evaluation in the clear.
        port: of the page; 0 takes a free one. Browsers keep keys by origin, so another port means other keys.
        show: open it in a browser.
        onnxruntime: folder `dist` of the npm package onnxruntime-web, for models with a public part.

    Raises:
        ConfigurationError: the port is taken, the server does not start, or a file of onnxruntime is missing.
        UnreachableError, UntrustedServerError, UnauthorizedError, InsecureTransportError: the server's address cannot be used.
    """
    signal.signal(signal.SIGTERM, _end)  # leaves the blocks below, which stops the server that was started here
    networks = models or ZOO
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(port))
        url, api_key, name = server, os.environ.get(API_KEY_VARIABLE), server
        if url is None:
            with Console(stderr=True).status("starting a server on this machine"):
                own = stack.enter_context(local_server(models=networks, tenant="page", **OWN_SETTINGS))
            url, api_key, name = own.url, own.api_key, "a separate process on this machine"
        token = secrets.token_urlsafe(32)
        app = create_app(
            Address(url, api_key=api_key, ca_file=ca_file),
            token,
            models=networks,
            name=name or url,
            model=model,
            onnxruntime=onnxruntime,
        )
        config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=1)
        address = f"http://{HOST}:{listener.getsockname()[1]}/#key={token}"
        typer.echo(
            f"the page is at {address}\nKeep the address to yourself: it contains the page's key. Ctrl-C ends the page."
        )
        if show and _has_screen():
            webbrowser.open(address)  # it may connect at once: the socket is listening
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _has_screen() -> bool:
    """Without a screen, a text browser would take over this terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigurationError(
            f"port {port} cannot be used ({error.strerror}): choose another with --port, 0 for any that is free"
        ) from None


def _end(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(0)
