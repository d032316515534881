"""The client, and its jobs; every method blocks until its answer is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from numpy.typing import ArrayLike

from ciphershift.client._session import Session
from ciphershift.client._sse import Observer
from ciphershift.client._transport import Address, SyncTransport
from ciphershift.client._wire import ModelProfile, Prediction
from ciphershift.client.jobs import JobStatus
from ciphershift.client.keystore import Keystore
from ciphershift.client.timings import Cost, Timings, Traffic

API_KEY_VARIABLE = "CIPHERSHIFT_API_KEY"
CA_FILE_VARIABLE = "CIPHERSHIFT_CA_FILE"


class BaseClient:
    """What the sync and the async client share: a server's address, and a session with it."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        ca_file: Path | str | None = None,
        keystore: Keystore | Path | str | None = None,
        retry_timeout: float = 60.0,
        accept_block_keys: bool = True,
        allow_toy_parameters: bool = False,
        show_progress: bool = True,
    ) -> None:
        """Stores the settings; keys are made, and the server is contacted, when first needed.

        Args:
            url: where the server listens, such as https://he.example.org.
            model: name of the model; may be left out if the server has only one.
            api_key: key for the server; the default is in CIPHERSHIFT_API_KEY. It is sent over https, or to this machine, only.
            ca_file: certificates of the authority behind a server of your own; the default is in CIPHERSHIFT_CA_FILE.
            keystore: where keys are stored, or its folder; the default is the user's own folder.
            retry_timeout: seconds for which a request is retried while the server is busy, restarts, or cannot be reached.
            accept_block_keys: use parameter sets whose small key is in blocks; SECURITY.md says what they assume.
            allow_toy_parameters: accept insecure parameter sets, for tests.
            show_progress: show a progress bar on a terminal's stderr, or in a notebook.

        Raises:
            InsecureTransportError: the API key would cross a network unencrypted.
            UnreachableError, UntrustedServerError, UnauthorizedError: address, certificates or API key cannot be used.
        """
        ca_file = ca_file or os.environ.get(CA_FILE_VARIABLE)
        self._address = Address(
            url, api_key=api_key or os.environ.get(API_KEY_VARIABLE), ca_file=Path(ca_file) if ca_file else None
        )
        self._model = model
        self._session = Session(
            model,
            keystore if isinstance(keystore, Keystore) else Keystore(keystore),
            retry_timeout=retry_timeout,
            accept_block_keys=accept_block_keys,
            allow_toy_parameters=allow_toy_parameters,
            show_progress=show_progress,
        )

    def __repr__(self) -> str:
        """Shows no key."""
        return f"{type(self).__name__}({str(self._address)!r}, model={self._model!r})"

    @property
    def timings(self) -> Timings:
        """Seconds by stage of the prediction or job that was started last; `Job.timings` has those of one job."""
        return self._session.cost.timings

    @property
    def traffic(self) -> Traffic:
        """Bytes of the prediction or job that was started last; `Job.traffic` has those of one job."""
        return self._session.cost.traffic


class BaseJob:
    """What a job of the sync and of the async client share.

    Attributes:
        id: its id on the server.
        status: its last known status.
    """

    def __init__(self, session: Session, status: JobStatus, cost: Cost) -> None:
        self.id = status.id
        self.status = status
        self._session = session
        self._cost = cost

    def __repr__(self) -> str:
        """Shows what the server said last, without asking it."""
        status = self.status
        return f"{type(self).__name__}(id={self.id!r}, model={status.model!r}, images={status.images}, state={status.state!r})"

    @property
    def profile(self) -> ModelProfile:
        """The model's profile when the images were sent.

        Raises:
            UnknownJobError: they were not sent with this keystore.
        """
        return self._session.receipt(self.id).profile

    @property
    def timings(self) -> Timings:
        """Seconds that this object spent on the job, by stage."""
        return self._cost.timings

    @property
    def traffic(self) -> Traffic:
        """Bytes of the job's request and answer, as far as this object sent and fetched them."""
        return self._cost.traffic


class Client(BaseClient):
    """Encrypted predictions from a server.

    Example:
        >>> logits = Client("http://127.0.0.1:8000", model="mnist-fast").predict(images)
    """

    @cached_property
    def _transport(self) -> SyncTransport:
        return SyncTransport(self._address)

    def models(self) -> list[str]:
        """Returns the names of the models that the server offers."""
        return self._transport.run(self._session.models())

    def profile(self) -> ModelProfile:
        """Returns the model's profile: sizes, classes, parameter set."""
        return self._transport.run(self._session.profile())

    def prepare(self) -> str:
        """Makes keys and uploads the evaluation keys if the server lacks them; returns their id."""
        return self._transport.run(self._session.prepare()).key_id

    def predict(self, images: ArrayLike, *, timeout: float | None = None) -> Prediction:
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
        return self._transport.run(self._session.predict(images, timeout))

    def predict_proba(self, images: ArrayLike, *, timeout: float | None = None) -> Prediction:
        """Returns what the module gives, as `predict`: its softmax or sigmoid is computed here, after decryption.

        Arguments as of ``predict``.

        Raises:
            ConfigurationError: the module ends in logits.
            CiphershiftError: its subclass says what to change.
        """
        return self._transport.run(self._session.predict_proba(images, timeout))

    def submit(self, images: ArrayLike) -> Job:
        """Makes a job of images, without waiting for it.

        Example:
            >>> job = client.submit(images)
            >>> job.wait().state
            'completed'
            >>> logits = job.result()
        """
        return Job(self._transport, self._session, *self._transport.run(self._session.submit(images)))

    def job(self, job_id: str) -> Job:
        """Returns one of your jobs, submitted by this process or another one.

        Raises:
            UnknownJobError: the server has no such job of yours.
        """
        return Job(self._transport, self._session, self._transport.run(self._session.status(job_id)), Cost())

    def jobs(self, limit: int = 100) -> Sequence[JobStatus]:
        """Returns the status of your jobs, newest first."""
        return self._transport.run(self._session.jobs(limit))

    def close(self) -> None:
        """Closes the connections and erases the secret keys from memory."""
        self._transport.close()
        self._session.close()

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the client."""
        self.close()


class Job(BaseJob):
    """Encrypted images that a server evaluates.

    Attributes:
        id: its id on the server.
        status: its last known status.
    """

    def __init__(self, transport: SyncTransport, session: Session, status: JobStatus, cost: Cost) -> None:
        """Jobs come from `Client.submit` and `Client.job`."""
        super().__init__(session, status, cost)
        self._transport = transport

    def refresh(self) -> JobStatus:
        """Asks the server for the job's status."""
        self.status = self._transport.run(self._session.status(self.id))
        return self.status

    def wait(self, timeout: float | None = None, on_progress: Observer | None = None) -> JobStatus:
        """Waits until the job is completed, failed or canceled.

        Args:
            timeout: seconds; the job goes on after them.
            on_progress: called with each status that the server reports meanwhile.

        Raises:
            DeadlineError: the timeout has passed.
        """
        self.status = self._transport.run(self._session.wait(self.id, timeout, on_progress, self.timings))
        return self.status

    def result(self, timeout: float | None = None) -> Prediction:
        """Waits for the logits, as `predict` gives them, and decrypts them; can be called again while the server keeps the answer.

        Raises:
            DeadlineError: the timeout has passed; the job goes on.
            UnknownJobError: the images were not sent with this keystore.
            CanceledError, ExpiredError: the answer is gone.
            CiphershiftError: why the job failed.
        """
        return self._transport.run(self._session.result(self.id, timeout, self._cost))

    def cancel(self) -> JobStatus:
        """Cancels the job, or deletes the answer of a finished one from the server."""
        self.status = self._transport.run(self._session.cancel(self.id))
        return self.status
