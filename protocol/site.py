"""The page to draw on, a static site, as the server (`ciphershift serve --page`) and `ciphershift page` hand it out."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ciphershift.errors import ConfigurationError

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
ONNXRUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page needs of the npm package onnxruntime-web, and has the digests of, to compute the public part of a model."""


class Site(StaticFiles):
    """The files, each with the headers that tell a browser what the page may do."""

    def __init__(self, onnxruntime: Path | None = None) -> None:
        """Names the folders.

        Args:
            onnxruntime: the folder `dist` of the npm package onnxruntime-web, two files of which are handed out at `onnxruntime/`.

        Raises:
            ConfigurationError: the folder does not hold them.
        """
        super().__init__(directory=FOLDER, html=True)
        self._beside = {f"onnxruntime/{name}": onnxruntime / name for name in ONNXRUNTIME} if onnxruntime else {}
        for file in self._beside.values():
            if not file.is_file():
                raise ConfigurationError(
                    f"{file} does not exist: name the folder dist of the npm package onnxruntime-web"
                )

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Returns a file and what is known of it; None if there is none."""
        beside = self._beside.get(path)
        return (str(beside), beside.stat()) if beside else super().lookup_path(path)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Returns a file."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
