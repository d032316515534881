"""The client for coroutines, and its jobs: the same operations as the sync client's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

from numpy.typing import ArrayLike

from ciphershift.client._session import Session
from ciphershift.client._sse import Observer
from ciphershift.client._transport import AsyncTransport
from ciphershift.client._wire import ModelProfile, Prediction
from ciphershift.client.client import BaseClient, BaseJob
from ciphershift.client.jobs import JobStatus
from ciphershift.client.timings import Cost


class AsyncClient(BaseClient):
    """Encrypted predictions from a server; keys, encryption and decryption run in a thread.

    Example:
        >>> logits = await AsyncClient("http://127.0.0.1:8000", model="mnist-fast").predict(images)
    """

    @cached_property
    def _transport(self) -> AsyncTransport:
        return AsyncTransport(self._address)

    async def models(self) -> list[str]:
        """Returns the names of the models that the server offers."""
        return await self._transport.run(self._session.models())

    async def profile(self) -> ModelProfile:
        """Returns the model's profile: sizes, classes, parameter set."""
        return await self._transport.run(self._session.profile())

    async def prepare(self) -> str:
        """Makes keys and uploads the evaluation keys if the server lacks them; returns their id."""
        return (await self._transport.run(self._session.prepare())).key_id

    async def predict(self, images: ArrayLike, *, timeout: float | None = None) -> Prediction:
        """Returns logits [n, classes]; of a model with several outputs, a dict of [n, ...] by name. The server sees only ciphertexts.

        Args:
            images: uint8 from 0 to 255 or floats from 0 to 1, of shape [n, C, H, W], or [C, H, W]; C may be left out if it is 1. Of a
                model with features of its own, raw values: [n, features], or a data frame, whose columns are taken by the features'
                names. Of a model that takes sequences, a list of arrays [features, own length], which are padded, or whole samples
                [n, features + 1, length].
            timeout: seconds to wait for the server in all; jobs that are not finished then are canceled.

        Raises:
            CiphershiftError: its subclass says what to change.
        """
        return await self._transport.run(self._session.predict(images, timeout))

    async def predict_proba(self, images: ArrayLike, *, timeout: float | None = None) -> Prediction:
        """Returns what the module gives, as `predict`: its softmax or sigmoid is computed here, after decryption.

        Arguments as of ``predict``.

        Raises:
            ConfigurationError: the module ends in logits.
            CiphershiftError: its subclass says what to change.
        """
        return await self._transport.run(self._session.predict_proba(images, timeout))

    async def submit(self, images: ArrayLike) -> AsyncJob:
        """Makes a job of images, without waiting for it.

        Example:
            >>> job = await client.submit(images)
            >>> (await job.wait()).state
            'completed'
            >>> logits = await job.result()
        """
        return AsyncJob(self._transport, self._session, *(await self._transport.run(self._session.submit(images))))

    async def job(self, job_id: str) -> AsyncJob:
        """Returns one of your jobs, submitted by this process or another one.

        Raises:
            UnknownJobError: the server has no such job of yours.
        """
        return AsyncJob(self._transport, self._session, await self._transport.run(self._session.status(job_id)), Cost())

    async def jobs(self, limit: int = 100) -> Sequence[JobStatus]:
        """Returns the status of your jobs, newest first."""
        return await self._transport.run(self._session.jobs(limit))

    async def close(self) -> None:
        """Closes the connections and erases the secret keys from memory."""
        await self._transport.close()
        self._session.close()

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the client."""
        await self.close()


class AsyncJob(BaseJob):
    """Encrypted images that a server evaluates.

    Attributes:
        id: its id on the server.
        status: its last known status.
    """

    def __init__(self, transport: AsyncTransport, session: Session, status: JobStatus, cost: Cost) -> None:
        """Jobs come from `AsyncClient.submit` and `AsyncClient.job`."""
        super().__init__(session, status, cost)
        self._transport = transport

    async def refresh(self) -> JobStatus:
        """Asks the server for the job's status."""
        self.status = await self._transport.run(self._session.status(self.id))
        return self.status

    async def wait(self, timeout: float | None = None, on_progress: Observer | None = None) -> JobStatus:
        """Waits until the job is completed, failed or canceled.

        Args:
            timeout: seconds; the job goes on after them.
            on_progress: called with each status that the server reports meanwhile.

        Raises:
            DeadlineError: the timeout has passed.
        """
        self.status = await self._transport.run(self._session.wait(self.id, timeout, on_progress, self.timings))
        return self.status

    async def result(self, timeout: float | None = None) -> Prediction:
        """Waits for the logits, as `predict` gives them, and decrypts them; can be called again while the server keeps the answer.

        Raises:
            DeadlineError: the timeout has passed; the job goes on.
            UnknownJobError: the images were not sent with this keystore.
            CanceledError, ExpiredError: the answer is gone.
            CiphershiftError: why the job failed.
        """
        return await self._transport.run(self._session.result(self.id, timeout, self._cost))

    async def cancel(self) -> JobStatus:
        """Cancels the job, or deletes the answer of a finished one from the server."""
        self.status = await self._transport.run(self._session.cancel(self.id))
        return self.status
