"""The two clients: the same steps (client/session.py), driven with and without an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import closing
from functools import cached_property
from typing import Any, Self, TypeVar, cast

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from client.keystore import Keystore
from client.protocol import ModelProfile
from client.session import Pause, Session, Step, Timings, Traffic
from he_layers.crypto.errors import TooLargeError, UnreachableError

T = TypeVar("T")

# An answer takes as long as the network is deep; the server's own deadline ends it.
_HEADERS = {"Accept-Encoding": "identity"}  # ciphertexts do not shrink, and a small body must not turn into a large one
_MAX_ANSWER_BYTES = 1 << 20
_TIMEOUT = httpx.Timeout(connect=10.0, read=None, write=120.0, pool=None)


class _BaseClient:
    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        keystore: Keystore | None = None,
        allow_toy_parameters: bool = False,
        show_progress: bool = True,
    ) -> None:
        """Takes note of a server; keys are made, and the server is asked, when first needed.

        Args:
            url: where the server listens, such as http://127.0.0.1:8000.
            model: which of its models to use; not needed if it has one only.
            keystore: where keys rest; the default is the user's own folder.
            allow_toy_parameters: accept insecure parameter sets, for tests.
            show_progress: draw a bar on a terminal's stderr.
        """
        self._url = url.rstrip("/")
        self._session = Session(
            model, keystore or Keystore(), allow_toy_parameters=allow_toy_parameters, show_progress=show_progress
        )

    @property
    def timings(self) -> Timings:
        """Seconds of the last prediction by stage."""
        return self._session.timings

    @property
    def traffic(self) -> Traffic:
        """Bytes of the last inference request and of its answer."""
        return self._session.traffic

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        return UnreachableError(
            f"no answer from {self._url} ({error or type(error).__name__}): is a server running there?"
        )


class Client(_BaseClient):
    """Encrypted predictions from a server.

    Example:
        >>> logits = Client("http://127.0.0.1:8000", model="mnist-fast").predict(images)
    """

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=_TIMEOUT, headers=_HEADERS)

    def profile(self) -> ModelProfile:
        """Returns what the server says of the model."""
        return self._drive(self._session.profile())

    def prepare(self) -> str:
        """Makes keys and uploads the evaluation keys where they are missing; returns their id."""
        return self._drive(self._session.prepare()).key_id

    def predict(self, images: ArrayLike) -> NDArray[np.float64]:
        """Returns logits [n, classes]; the server sees ciphertexts alone.

        Args:
            images: uint8 from 0 to 255 or floats from 0 to 1, of shape [n, C, H, W], or [C, H, W]; C may be left out if it is 1.

        Raises:
            HEServiceError: its subclass says what to change.
        """
        return self._drive(self._session.predict(images))

    def close(self) -> None:
        """Closes the connection and erases the secret keys from memory."""
        self._http.close()
        self._session.close()

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self.close()

    def _drive(self, steps: Generator[Step, httpx.Response, T]) -> T:
        with closing(steps):
            done, step = _advance(steps, None)
            while not done:
                done, step = _advance(steps, self._take(step))
            return cast(T, step)

    def _take(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            with self._http.stream(step.method, step.path, content=step.content, headers=step.headers) as answer:
                body = _Body(answer)
                for chunk in answer.iter_raw():
                    body.add(chunk)
                return body.response()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error


class AsyncClient(_BaseClient):
    """The same predictions from a coroutine; keys, encryption and decryption run in a thread.

    Example:
        >>> logits = await AsyncClient("http://127.0.0.1:8000", model="mnist-fast").predict(images)
    """

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT, headers=_HEADERS)

    async def profile(self) -> ModelProfile:
        """Returns what the server says of the model."""
        return await self._drive(self._session.profile())

    async def prepare(self) -> str:
        """Makes keys and uploads the evaluation keys where they are missing; returns their id."""
        return (await self._drive(self._session.prepare())).key_id

    async def predict(self, images: ArrayLike) -> NDArray[np.float64]:
        """Returns logits [n, classes], like `Client.predict`."""
        return await self._drive(self._session.predict(images))

    async def close(self) -> None:
        """Closes the connection and erases the secret keys from memory."""
        await self._http.aclose()
        self._session.close()

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connection."""
        await self.close()

    async def _drive(self, steps: Generator[Step, httpx.Response, T]) -> T:
        with closing(steps):
            done, step = await asyncio.to_thread(_advance, steps, None)
            while not done:
                done, step = await asyncio.to_thread(_advance, steps, await self._take(step))
            return cast(T, step)

    async def _take(self, step: Step) -> httpx.Response | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with self._http.stream(step.method, step.path, content=step.content, headers=step.headers) as answer:
                body = _Body(answer)
                async for chunk in answer.aiter_raw():
                    body.add(chunk)
                return body.response()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error


class _Body:
    """The body of an answer as it arrives, as it is (never inflated), up to a limit that a server cannot move."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._content = bytearray()

    def add(self, chunk: bytes) -> None:
        self._content += chunk
        if len(self._content) > _MAX_ANSWER_BYTES:
            raise TooLargeError(
                f"{self._answer.url} answers with more than {_MAX_ANSWER_BYTES} bytes: this is no answer of ours"
            )

    def response(self) -> httpx.Response:
        headers = [(name, value) for name, value in self._answer.headers.multi_items() if name != "content-encoding"]
        return httpx.Response(
            self._answer.status_code, headers=headers, content=bytes(self._content), request=self._answer.request
        )


def _advance(steps: Generator[Step, httpx.Response, T], response: httpx.Response | None) -> tuple[bool, Any]:
    """Runs the steps up to the next call or pause: (False, step), or (True, result) at their end."""
    try:
        return False, steps.send(cast(httpx.Response, response))
    except StopIteration as end:
        return True, end.value
