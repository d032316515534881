"""One serving process: socket, connections, signals, shutdown."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

import typer
import uvicorn
from fastapi import FastAPI

from ciphershift.server import logs
from ciphershift.server.connection import limited
from ciphershift.server.service import Service
from ciphershift.server.settings import Settings

FILES = 65536  # descriptors that the process asks for
LEAVE_SECONDS = (
    1.5  # after `drain_seconds`, for open connections to end; then the process is gone, whatever still waits
)


def run(make_app: Callable[[], FastAPI], settings: Settings) -> None:
    """Serves an application until SIGTERM or SIGINT; prints where it listens."""
    logs.configure(settings.log_level)
    os.umask(0o077)  # what this process writes is for its own user
    _raise_file_limit()
    app = make_app()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        http=limited(
            max_connections=settings.max_connections,
            header_seconds=settings.header_seconds,
            body_seconds=settings.body_seconds,
        ),
        timeout_keep_alive=settings.idle_seconds,
        ws="none",
        loop="asyncio",
        timeout_graceful_shutdown=int(LEAVE_SECONDS),  # for streams and answers; half-open uploads are broken off
    )
    listener = config.bind_socket()
    set_options(listener, settings)
    listener.listen(config.backlog)  # before the URL is printed, so that early clients queue instead of being refused
    scheme = "https" if settings.tls_certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(f"listening on {scheme}://{host}:{listener.getsockname()[1]}")
    _Server(config, app.state.service).run(sockets=[listener])


def set_options(listener: socket.socket, settings: Settings) -> None:
    """Sets what connections inherit from the socket on which they are accepted."""
    # Otherwise an answer of two segments waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Against clients that read nothing, also under TLS, where the connection cannot see what waits below it.
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * settings.body_seconds))


def _raise_file_limit() -> None:
    """Each connection takes a descriptor; the usual soft limit of 1024 is below `max_connections`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have a lower limit than they say
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(hard, FILES), hard)
        )


class _Server(uvicorn.Server):
    """Drains at the first signal while still answering, and is gone LEAVE_SECONDS after its time; exits at once at the second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if self.config.is_ssl:  # uvicorn has no option for it; asyncio's default is 60 s
            create = partial(self._loop.create_server, ssl_handshake_timeout=self._service.settings.header_seconds)
            setattr(self._loop, "create_server", create)  # noqa: B010 - mypy refuses to assign to a method
        await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(self._end_connections())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end_connections(self) -> None:
        # uvicorn does so once; one that was accepted just before would be served for as long as its client asks.
        while True:
            await asyncio.sleep(0.1)
            for connection in list(self.server_state.connections):
                connection.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining or not self.started:
            self.force_exit = self._service.drained
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        # The kernel's timer, whose signal ends the process: what does not end may be a call to a database, or the interpreter's own exit.
        # Workers end with the process, and a job that it could not release is free when the lease is over.
        signal.setitimer(signal.ITIMER_REAL, self._service.settings.drain_seconds + LEAVE_SECONDS)
        self._draining = self._loop.create_task(self._service.drain())
        self._draining.add_done_callback(partial(self._leave, self._loop.time()))

    def _leave(self, began: float, _: object) -> None:
        # What the drain has not used is for those who still listen.
        unused = self._service.settings.drain_seconds - (self._loop.time() - began)
        self.config.timeout_graceful_shutdown = int(max(unused, 0) + LEAVE_SECONDS)
        self.should_exit = True
