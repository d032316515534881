"""Protection of a server without API keys against web pages: any page that its user visits can send requests to this machine.

Requests must address the server by a name that is its own (a foreign name may point to a loopback address), and must not come from a page
of another origin. With API keys this is not needed: a page does not know one.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ciphershift.errors import ForbiddenError
from ciphershift.server.api.problems import problem


class SameOriginMiddleware:
    """Answers 403 to what is not addressed to this server, or comes from a page of another origin."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], any_host: bool, origins: Sequence[str]) -> None:
        """Wraps an application.

        Args:
            app: the application.
            hosts: names by which the server may be addressed.
            any_host: accept every name: the operator has opened the server to the network.
            origins: of pages that the operator allows; `*` for every one.
        """
        self._app = app
        self._hosts = hosts
        self._any_host = any_host
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        reason = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
        else:
            await problem(ForbiddenError.http_status, ForbiddenError.code, reason)(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("Host", "")
        name = _host_name(host)
        if not self._any_host and name not in self._hosts:
            return f"this server without API keys is not called {name[:80]!r}: name it in CIPHERSHIFT_ALLOWED_HOSTS"
        origin = headers.get("Origin")
        if "*" in self._origins or origin in self._origins:
            return None
        if origin is not None and not _is_origin_of(origin, host):
            return (
                "a page of another origin may not use a server without API keys: name it in CIPHERSHIFT_ALLOWED_ORIGINS"
            )
        site = headers.get("Sec-Fetch-Site", "none")
        if origin is None and site not in ("none", "same-origin") and headers.get("Sec-Fetch-Mode") != "navigate":
            return (
                "a page of another origin may not use a server without API keys: name it in CIPHERSHIFT_ALLOWED_ORIGINS"
            )
        return None


def _host_name(host: str) -> str:
    """The name in a Host header in lower case; of a malformed one, all of it, which is nobody's name."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return host.lower()


def _is_origin_of(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
