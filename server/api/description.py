"""The API's description for programs (/openapi.json) and for people (/docs), made once.

The page at /docs loads scripts from a network of others, which could do whatever a page of this origin may. So it is not there where the
origin has a page that keeps secret keys.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html

_CDN = "https://cdn.jsdelivr.net"
_SWAGGER = f"{_CDN}/npm/swagger-ui-dist@5.17.14"
_INTEGRITY = {  # of the files in `npm pack swagger-ui-dist@5.17.14`
    f"{_SWAGGER}/swagger-ui-bundle.js": "sha384-wmyclcVGX/WhUkdkATwhaK1X1JtiNrr2EoYJ+diV3vj4v6OC5yCeSu+yW13SYJep",
    f"{_SWAGGER}/swagger-ui.css": "sha384-wxLW6kwyHktdDGr6Pv1zgm/VGJh99lfUbzSn6HNHBENZlCN7W602k9VkGdxuFvPn",
}
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI, *, for_people: bool) -> None:
    """Adds /openapi.json and, if wanted, /docs to an application that was made without them."""
    cached: list[bytes] = []

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        if not cached:
            cached.append(json.dumps(app.openapi()).encode())
        return Response(cached[0], media_type="application/json")

    if for_people:
        _install_docs(app)


def _install_docs(app: FastAPI) -> None:
    html = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=app.title,
        swagger_js_url=f"{_SWAGGER}/swagger-ui-bundle.js",
        swagger_css_url=f"{_SWAGGER}/swagger-ui.css",
    )
    page = bytes(html.body)
    for address, digest in _INTEGRITY.items():
        page = page.replace(
            f'"{address}"'.encode(), f'"{address}" integrity="{digest}" crossorigin="anonymous"'.encode()
        )
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(page)
    )
    policy = (
        f"default-src 'none'; script-src {_CDN} {hashes}; style-src {_CDN} 'unsafe-inline'; img-src 'self' data: https:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)
