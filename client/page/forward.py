"""Passes the page's requests on to the server: so that the server need not know the page's origin, nor the browser the API key.

What passes is what any client sends: ciphertexts and evaluation keys. Only headers that the client in the browser uses are passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from ciphershift.client._transport import Address
from ciphershift.client.page.problems import problem
from ciphershift.protocol.tensors import HEADER_LENGTH

SENT = ("Accept", "Content-Type", "Content-Length", HEADER_LENGTH, "Idempotency-Key", "Last-Event-ID", "Prefer")
RECEIVED = ("Content-Type", "Content-Length", HEADER_LENGTH, "Location", "Retry-After", "X-Request-Id")
_TIMEOUT = httpx.Timeout(connect=10.0, read=120.0, write=120.0, pool=None)
_BAD_GATEWAY = 502


class Forward:
    """Requests to one server."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._http = httpx.AsyncClient(**address.options(), timeout=_TIMEOUT)

    async def __call__(self, request: Request) -> Response:
        """Returns the server's answer as it arrives, or a problem that says why there is none."""
        headers = {name: request.headers[name] for name in SENT if name in request.headers}
        content = request.stream() if "Content-Length" in headers else None
        path = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        outgoing = self._http.build_request(request.method, path, headers=headers, content=content)
        try:
            answer = await self._http.send(outgoing, stream=True)
        except httpx.TransportError as error:
            return problem(self._address.error(error), _BAD_GATEWAY)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        kept = {name: answer.headers[name] for name in RECEIVED if name in answer.headers}
        return StreamingResponse(_body(answer), answer.status_code, kept, background=BackgroundTask(answer.aclose))

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
