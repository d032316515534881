"""The API's description for programs (/openapi.json) and for people (/docs), made once."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html

_CDN = "https://cdn.jsdelivr.net"
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI) -> None:
    """Adds both pages to an application that was made without them."""
    cached: list[bytes] = []
    page = bytes(get_swagger_ui_html(openapi_url="/openapi.json", title=app.title).body)
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(page)
    )
    policy = (
        f"default-src 'none'; script-src {_CDN} {hashes}; style-src {_CDN} 'unsafe-inline'; img-src 'self' data: https:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        if not cached:
            cached.append(json.dumps(app.openapi()).encode())
        return Response(cached[0], media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)
