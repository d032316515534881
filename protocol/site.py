"""The page to draw on, a static site, as the server (`ciphershift serve --page`) and `ciphershift page` hand it out."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).resolve().parents[1] / "client" / "page" / "site"
HEADERS = {
    # The kernel is WebAssembly; scripts come from this origin alone, and reach nothing but it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Site(StaticFiles):
    """The files, each with the headers that tell a browser what the page may do."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Returns a file."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
