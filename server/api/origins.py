"""Scripts of web pages from elsewhere (CORS): which origins may use this server, off unless the operator names some.

A browser asks before it lets a page's script send an API key or a ciphertext to another origin, or read an answer. It is the browser that
obeys; who may do what is still a matter of API keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from ciphershift.protocol.tensors import HEADER_LENGTH

_REMEMBERED_SECONDS = 600  # before a browser asks again
_SENT = ("Authorization", "Content-Type", HEADER_LENGTH, "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Request-Id")
_READ = (HEADER_LENGTH, "Location", "Retry-After", "WWW-Authenticate", "X-Request-Id")


def install(app: FastAPI, origins: Sequence[str]) -> None:
    """Lets pages of these origins use `app`; of every one, if `*` is among them. No cookies: there are none."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "PUT", "POST", "DELETE"),
            allow_headers=_SENT,
            expose_headers=_READ,
            max_age=_REMEMBERED_SECONDS,
        )
