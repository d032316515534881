"""The page's state: the server's models, a client for each, and the runs in progress."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.client._wire import ModelProfile
from ciphershift.client.async_client import AsyncClient, AsyncJob
from ciphershift.client.jobs import JobStatus
from ciphershift.client.keystore import Keystore
from ciphershift.errors import CiphershiftError, InsecureParamsError, KeyMismatchError, WrongAnswerError
from ciphershift.protocol.container import HEADER_BYTES

RETRY_TIMEOUT = 10.0  # seconds; a user is waiting
CLOSE_SECONDS = 3.0

Event = dict[str, Any]
Tell = Callable[[Event], None]


class PageSession:
    """The clients of one server, one for each model, with one keystore."""

    def __init__(
        self,
        url: str,
        *,
        keystore: Keystore,
        ca_file: Path | None = None,
        api_key: str | None = None,
        allow_toy_parameters: bool = False,
    ) -> None:
        self.url = url
        self.keystore = keystore
        self._options: dict[str, Any] = {
            "keystore": keystore,
            "ca_file": ca_file,
            "api_key": api_key,
            "retry_timeout": RETRY_TIMEOUT,
            "allow_toy_parameters": allow_toy_parameters,
            "show_progress": False,
        }
        self._clients: dict[str, AsyncClient] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._runs: set[asyncio.Task[None]] = set()

    async def models(self) -> list[ModelProfile]:
        """Returns the profiles of the server's usable models, those with the fewest look-ups first."""
        async with AsyncClient(self.url, **self._options) as client:
            names = await client.models()
        profiles = await asyncio.gather(*(self.profile(name) for name in names), return_exceptions=True)
        usable = []
        for profile in profiles:
            if isinstance(profile, ModelProfile):
                usable.append(profile)
            elif not isinstance(profile, InsecureParamsError):
                raise profile
        return sorted(usable, key=lambda profile: profile.bootstraps)

    async def profile(self, model: str) -> ModelProfile:
        """Returns the profile of a model."""
        return await self._client(model).profile()

    async def classify(self, model: str, image: NDArray[np.uint8]) -> AsyncGenerator[Event]:
        """Yields the events of a run, the logits or an error last; closing the generator cancels the job.

        Args:
            model: name of the model.
            image: uint8 [C, H, W].
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        # A task of its own, so that the job on the server can still be canceled when the page is closed.
        run = asyncio.create_task(self._run(model, image, events.put_nowait))
        self._runs.add(run)
        run.add_done_callback(lambda _: events.put_nowait(None))
        run.add_done_callback(self._runs.discard)
        try:
            while event := await events.get():
                yield event
            if not run.cancelled():
                run.result()  # re-raises, if it failed
        finally:
            run.cancel()

    def stop(self) -> None:
        """Cancels the runs in progress."""
        for run in self._runs:
            run.cancel()

    async def close(self) -> None:
        """Cancels the runs in progress, and erases the secret keys from memory."""
        self.stop()
        if self._runs:
            await asyncio.wait(self._runs, timeout=CLOSE_SECONDS)  # the server may be gone already
        for client in self._clients.values():
            await client.close()

    def _client(self, model: str) -> AsyncClient:
        if model not in self._clients:
            self._clients[model] = AsyncClient(self.url, model=model, **self._options)
        return self._clients[model]

    async def _run(self, model: str, image: NDArray[np.uint8], tell: Tell) -> None:
        try:
            async with self._locks[model]:  # a second page of this process waits
                tell({"event": "encrypting"})
                await self._send(self._client(model), image, tell)
        except (KeyMismatchError, WrongAnswerError) as error:
            await self._clients.pop(model).close()  # keys or model have changed: start with a new client next time
            tell(_failed(error))
        except CiphershiftError as error:
            tell(_failed(error))

    async def _send(self, client: AsyncClient, image: NDArray[np.uint8], tell: Tell) -> None:
        loop = asyncio.get_running_loop()
        job = await client.submit(image)
        tell(_sent(job))

        def observe(status: JobStatus) -> None:  # called from the event loop and from threads
            loop.call_soon_threadsafe(tell, _progress(status))

        try:
            await job.wait(on_progress=observe)
            logits = await job.result()
        except asyncio.CancelledError:
            with suppress(CiphershiftError):
                await job.cancel()
            raise
        tell({"event": "answer", "logits": logits[0].tolist(), "seconds": job.timings.stages()})


def _sent(job: AsyncJob) -> Event:
    """The image's ciphertext, byte for byte as in the request."""
    (ciphertext,) = job.traffic.ciphertexts
    return {
        "event": "sent",
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "digest": hashlib.sha256(ciphertext).hexdigest(),
        "header": HEADER_BYTES,
    }


def _failed(error: CiphershiftError) -> Event:
    return {"event": "error", "code": error.code, "message": error.message}


def _progress(status: JobStatus) -> Event:
    progress = status.progress
    return {
        "event": "progress",
        "ahead": status.queue_position if status.state == "pending" else None,
        "done": progress.bootstraps_done,
        "total": progress.bootstraps_total,
        "left": progress.eta_seconds,
    }
