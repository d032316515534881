"""The client for coroutines, and its jobs: the same steps as the sync client's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ciphershift.client._base import BaseClient
from ciphershift.client._following import Observer
from ciphershift.client._session import Session
from ciphershift.client._transport import AsyncDriver
from ciphershift.client._wire import ModelProfile
from ciphershift.client.jobs import JobStatus


class AsyncClient(BaseClient):
    """Encrypted predictions from a server; keys, encryption and decryption run in a thread.

    Example:
        >>> logits = await AsyncClient("http://127.0.0.1:8000", model="mnist-fast").predict(images)
    """

    @cached_property
    def _driver(self) -> AsyncDriver:
        return AsyncDriver(self._address)

    async def models(self) -> list[str]:
        """Returns the names of the models that the server offers."""
        return await self._driver.run(self._session.models())

    async def profile(self) -> ModelProfile:
        """Returns what the server says of the model."""
        return await self._driver.run(self._session.profile())

    async def prepare(self) -> str:
        """Makes keys and uploads the evaluation keys where they are missing; returns their id."""
        return (await self._driver.run(self._session.prepare())).key_id

    async def predict(self, images: ArrayLike, *, timeout: float | None = None) -> NDArray[np.float64]:
        """Returns logits [n, classes]; the server sees ciphertexts alone.

        Args:
            images: uint8 from 0 to 255 or floats from 0 to 1, of shape [n, C, H, W], or [C, H, W]; C may be left out if it is 1.
            timeout: seconds to wait for the server in all; what is not done then is canceled.

        Raises:
            CiphershiftError: its subclass says what to change.
        """
        return await self._driver.run(self._session.predict(images, timeout))

    async def submit(self, images: ArrayLike) -> AsyncJob:
        """Makes a job of images, and does not wait for it.

        Example:
            >>> job = await client.submit(images)
            >>> logits = await job.result()
        """
        return AsyncJob(self._driver, self._session, await self._driver.run(self._session.submit(images)))

    async def job(self, job_id: str) -> AsyncJob:
        """Returns one of your jobs, submitted by this process or another one.

        Raises:
            UnknownJobError: the server has no such job of yours.
        """
        return AsyncJob(self._driver, self._session, await self._driver.run(self._session.status(job_id)))

    async def jobs(self, limit: int = 100) -> Sequence[JobStatus]:
        """Returns what the server says of your jobs, newest first."""
        return await self._driver.run(self._session.jobs(limit))

    async def close(self) -> None:
        """Closes the connections and erases the secret keys from memory."""
        await self._driver.close()
        self._session.close()

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connections."""
        await self.close()


class AsyncJob:
    """Encrypted images on their way through a server.

    Attributes:
        id: its name on the server.
        status: what the server said of it last.
    """

    def __init__(self, driver: AsyncDriver, session: Session, status: JobStatus) -> None:
        """Comes from `AsyncClient.submit` and `AsyncClient.job`."""
        self.id = status.id
        self.status = status
        self._driver = driver
        self._session = session

    @property
    def profile(self) -> ModelProfile:
        """The model's, as it was when the images were sent.

        Raises:
            UnknownJobError: they were not sent with this keystore.
        """
        return self._session.receipt(self.id).profile

    async def refresh(self) -> JobStatus:
        """Asks the server how the job is doing."""
        self.status = await self._driver.run(self._session.status(self.id))
        return self.status

    async def wait(self, timeout: float | None = None, on_progress: Observer | None = None) -> JobStatus:
        """Waits until the job is completed, failed or canceled.

        Args:
            timeout: seconds; the job goes on after them.
            on_progress: is called with each status that the server reports meanwhile.

        Raises:
            DeadlineError: the timeout has passed.
        """
        self.status = await self._driver.run(self._session.wait(self.id, timeout, on_progress))
        return self.status

    async def result(self, timeout: float | None = None) -> NDArray[np.float64]:
        """Waits for the logits [n, classes] and decrypts them; can be called again while the server keeps the answer.

        Raises:
            DeadlineError: the timeout has passed; the job goes on.
            UnknownJobError: the images were not sent with this keystore.
            CanceledError, ExpiredError: there is no answer any more.
            CiphershiftError: why the job failed.
        """
        return await self._driver.run(self._session.result(self.id, timeout))

    async def cancel(self) -> JobStatus:
        """Ends the job, or makes the server forget the answer of one that is finished."""
        self.status = await self._driver.run(self._session.cancel(self.id))
        return self.status
