"""Restricts the page to the user who opened it: no other machine, user or web page gets an answer.

The process listens on a loopback address. Besides, the Host header must name this machine (against DNS rebinding); whatever is not a file
of the page needs a token that only the printed address contains, and a request from another origin is refused even with the token. The
token is in the fragment of the address, which browsers do not send, and then in a header, which other origins cannot set without CORS.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ciphershift.client.page.problems import problem
from ciphershift.errors import ForbiddenError, UnauthorizedError

HOSTS = ("127.0.0.1", "localhost")
GUARDED = ("/v2/", "/plaintext")


class TokenAuth:
    """Middleware: refuses requests that are not the page's own."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards a request, or refuses it."""
        error = self._problem(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else None
        await (problem(error) if error else self._app)(scope, receive, send)

    def _problem(self, headers: Headers, path: str) -> ForbiddenError | UnauthorizedError | None:
        host = headers.get("host", "")
        if host.partition(":")[0] not in HOSTS:
            return ForbiddenError(f"this page is only served to this machine, as {HOSTS[0]}")
        if not path.startswith(GUARDED):
            return None
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return ForbiddenError("the request comes from another web page")
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return UnauthorizedError(
                "the token is missing or wrong: open the address that `ciphershift page` printed, with what is behind its #"
            )
        return None
