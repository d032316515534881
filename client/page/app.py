"""The page's HTTP interface: images in, events out. Stateless: a run lives as long as the connection that reads its events."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ciphershift.client import image_files
from ciphershift.client._wire import ModelProfile
from ciphershift.client.page import plaintext
from ciphershift.client.page.auth import TokenAuth
from ciphershift.client.page.session import PageSession
from ciphershift.errors import BadShapeError, CiphershiftError, MalformedError, TooLargeError

STATIC = Path(__file__).with_name("static")
SAMPLES = Path(__file__).resolve().parents[1] / "samples"
MAX_IMAGE_BYTES = 20 << 20
MAX_JSON_BYTES = 1 << 20


class RunRequest(BaseModel):
    """An image to classify: the pixels that `/api/images` returned."""

    model: str
    pixels: Base64Bytes


class Page:
    """The page's endpoints."""

    def __init__(self, session: PageSession, *, models: Path, preferred: str | None, is_embedded: bool) -> None:
        """Args: models: folder of networks for evaluation in the clear. preferred: the model that is selected at first."""
        self._session = session
        self._models = models
        self._preferred = preferred
        self._is_embedded = is_embedded

    async def index(self, _: Request) -> Response:
        """The page itself."""
        return FileResponse(STATIC / "index.html")

    async def about(self, _: Request) -> Response:
        """The server, its models, the samples that fit them, and where the keys are."""
        profiles = await self._session.models()
        return JSONResponse(
            {
                "server": self._session.url,
                "embedded": self._is_embedded,
                "chosen": self._preferred,
                "models": [self._model(profile) for profile in profiles],
            }
        )

    async def image(self, request: Request) -> Response:
        """Fits an image of any format and size to a model."""
        profile = await self._session.profile(request.query_params.get("model", ""))
        data = await _body(request, MAX_IMAGE_BYTES)
        name = request.query_params.get("name") or "the image"
        pixels, done = await asyncio.to_thread(image_files.fitted, data, name, profile)
        return JSONResponse({"pixels": base64.b64encode(pixels.tobytes()).decode(), "done": done})

    async def run(self, request: Request) -> Response:
        """Encrypts and sends an image; each line of the answer is one event of the run."""
        profile, image = await self._parsed(request)
        return StreamingResponse(_lines(self._session, profile.model, image), media_type="application/x-ndjson")

    async def plaintext(self, request: Request) -> Response:
        """What the same network answers without encryption."""
        profile, image = await self._parsed(request)
        logits = await asyncio.to_thread(plaintext.logits, self._models, profile, image)
        return JSONResponse({"logits": logits.tolist()})

    async def _parsed(self, request: Request) -> tuple[ModelProfile, NDArray[np.uint8]]:
        try:
            run = RunRequest.model_validate_json(await _body(request, MAX_JSON_BYTES))
        except ValidationError as error:
            raise MalformedError(f"the request holds no image: {error.errors()[0]['msg']}") from None
        profile = await self._session.profile(run.model)
        pixels = np.frombuffer(run.pixels, dtype=np.uint8)
        if pixels.size != np.prod(profile.input_shape):
            raise BadShapeError(f"the image has {pixels.size} values, {profile.model} takes {profile.input_shape}")
        return profile, pixels.reshape(profile.input_shape)

    def _model(self, profile: ModelProfile) -> dict[str, Any]:
        keys = self._session.keystore.folder / profile.params_id
        return profile.model_dump(
            include={"model", "input_shape", "classes", "bootstraps", "layers", "key_bytes", "security_bits"}
        ) | {
            "keys": f"~/{keys.relative_to(Path.home())}" if keys.is_relative_to(Path.home()) else str(keys),
            "has_keys": keys.exists(),
            "draws": profile.classes == image_files.DIGITS and profile.input_shape[0] == 1,
            "samples": [sample for sample in _samples() if _fits(sample, profile)],
        }


def create_app(page: Page, session: PageSession, token: str) -> Starlette:
    """Returns the application; its /api needs the token."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await session.close()

    return Starlette(
        routes=[
            Route("/", page.index),
            Route("/api/about", page.about),
            Route("/api/images", page.image, methods=["POST"]),
            Route("/api/runs", page.run, methods=["POST"]),
            Route("/api/plaintext", page.plaintext, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
            Mount("/samples", StaticFiles(directory=SAMPLES)),
        ],
        middleware=[Middleware(TokenAuth, token=token)],
        exception_handlers={CiphershiftError: _refuse},
        lifespan=lifespan,
    )


async def _lines(session: PageSession, model: str, image: NDArray[np.uint8]) -> AsyncIterator[str]:
    async with aclosing(session.classify(model, image)) as events:
        async for event in events:
            yield json.dumps(event) + "\n"


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLargeError(f"the request has more than {limit >> 20} MB: make the image smaller")
    return bytes(body)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, CiphershiftError)
    return JSONResponse({"code": error.code, "message": error.message}, status_code=error.http_status)


@cache
def _samples() -> Sequence[dict[str, Any]]:
    """The shipped images: file, index in their test set, and label."""
    found = []
    for path in SAMPLES.glob("*.png"):
        if match := re.fullmatch(r"(.+)-(\d+)-is-(.+)", path.stem):
            found.append({"file": path.name, "index": int(match[2]), "label": match[3].replace("-", " ")})
    return sorted(found, key=lambda sample: (sample["file"].split("-")[0], sample["index"]))


def _fits(sample: dict[str, Any], profile: ModelProfile) -> bool:
    return profile.input_shape[0] == 1 and sample["label"] in (name.replace("-", " ") for name in profile.classes)
