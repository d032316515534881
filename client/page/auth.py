"""Keeps the page to the one who opened it: no other machine, no other user, no other web page gets an answer.

The process listens on a loopback address. Three things besides: the Host header must name this machine (else a foreign name that
resolves to 127.0.0.1 would make a foreign page one of ours), requests to /api must carry a token that only the printed address has, and
one that comes from another origin is refused even with it. The token travels behind the # of the address, which browsers send to
nobody, and then in a header, which other origins cannot set without our leave.
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


class Guard:
    """Refuses what does not come from the page, and tells the browser what the page may do."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Stands before an application."""
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
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
            return f"this page is served to this machine alone, as {HOSTS[0]}"
        if not path.startswith("/api/"):
            return None
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return "the request comes from another web page"
        if not secrets.compare_digest(headers.get("x-token", "").encode(), self._token.encode()):
            return "the address lacks its token: open the one that `ciphershift page` printed"
        return None
