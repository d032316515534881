"""The page on this machine: its files, its requests to the server passed on, and the same network in the clear for comparison."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ciphershift.client._transport import Address
from ciphershift.client.page import plaintext
from ciphershift.client.page.auth import TokenAuth
from ciphershift.client.page.forward import Forward
from ciphershift.client.page.problems import problem
from ciphershift.errors import CiphershiftError, TooLargeError
from ciphershift.protocol.site import HEADERS, Site

MAX_INPUT_BYTES = 1 << 20


def create_app(
    address: Address, token: str, *, models: Path, name: str, model: str | None = None, onnxruntime: Path | None = None
) -> Starlette:
    """Returns the application.

    Args:
        address: of the server.
        token: which requests need that are not for the page's files.
        models: folder of networks for evaluation in the clear.
        name: of the server, for people.
        model: the one that is selected at first.
        onnxruntime: folder `dist` of the npm package onnxruntime-web, for models with a public part.

    Raises:
        ConfigurationError: the folder does not hold its files.
    """
    forward = Forward(address)
    settings = {"server": "../", "name": name, "model": model, "clear": "plaintext"}

    async def show_settings(_: Request) -> Response:
        return JSONResponse(settings, headers=HEADERS)

    async def in_the_clear(request: Request) -> Response:
        query = request.query_params
        values = await _body(request)
        asked = (query.get("model", ""), query.get("digest", ""))
        logits = await asyncio.to_thread(plaintext.logits, models, *asked, values)
        return JSONResponse({"logits": logits.tolist()})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await forward.close()

    return Starlette(
        routes=[
            Route("/page.json", show_settings),
            Route("/plaintext", in_the_clear, methods=["POST"]),
            Route("/v2/{path:path}", forward.__call__, methods=["GET", "PUT", "POST", "DELETE"]),
            Mount("/", Site(onnxruntime)),
        ],
        middleware=[Middleware(TokenAuth, token=token)],
        exception_handlers={CiphershiftError: _refuse},
        lifespan=lifespan,
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_INPUT_BYTES:
            raise TooLargeError(f"the request has more than {MAX_INPUT_BYTES >> 20} MB, no network takes as much")
    return bytes(body)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, CiphershiftError)
    return problem(error)
