"""One serving process: socket, signals, shutdown."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import typer
import uvicorn
from fastapi import FastAPI

from ciphershift.server import logs
from ciphershift.server.service import Service
from ciphershift.server.settings import Settings


def run(make_app: Callable[[], FastAPI], settings: Settings) -> None:
    """Serves an application until SIGTERM or SIGINT; prints where it listens."""
    logs.configure(settings.log_level)
    app = make_app()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=int(settings.drain_seconds) + 1,
    )
    listener = config.bind_socket()
    # Connections inherit it; otherwise an answer of two segments waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.listen(config.backlog)  # before the URL is printed, so that early clients queue instead of being refused
    scheme = "https" if settings.tls_certificate else "http"
    typer.echo(f"listening on {scheme}://{settings.host}:{listener.getsockname()[1]}")
    _Server(config, app.state.service).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Drains at the first signal while still answering; exits at once at the second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining or not self.started:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        self._draining = self._loop.create_task(self._service.drain())
        self._draining.add_done_callback(lambda _: setattr(self, "should_exit", True))
