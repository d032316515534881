"""Restricts the page to the user who opened it: no other machine, user or web page gets an answer.

The process listens on a loopback address. Besides, the Host header must name this machine (against DNS rebinding), requests to /api
must carry a token that only the printed address contains, and a request from another origin is refused even with the token. The token
is in the fragment of the address, which browsers do not send, and then in a header, which other origins cannot set without CORS.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ciphershift.errors import ForbiddenError

HOSTS = ("127.0.0.1", "localhost")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class TokenAuth:
    """Middleware: refuses requests that are not the page's own, and sets the security headers."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards a request, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        problem = self._problem(Headers(scope=scope), scope["path"])
        if problem:
            error = ForbiddenError(problem)
            refusal = JSONResponse({"code": error.code, "message": error.message}, status_code=error.http_status)
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _problem(self, headers: Headers, path: str) -> str | None:
        host = headers.get("host", "")
        if host.partition(":")[0] not in HOSTS:
            return f"this page is only served to this machine, as {HOSTS[0]}"
        if not path.startswith("/api/"):
            return None
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return "the request comes from another web page"
        if not secrets.compare_digest(headers.get("x-token", "").encode(), self._token.encode()):
            return "the token is missing or wrong: open the address that `ciphershift page` printed"
        return None
