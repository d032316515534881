"""What a client does, as generators of steps: the sync and the async client drive the same ones.

Nothing that is sent depends on anything that was decrypted, nor on whether it could be: answers are read and decrypted when all have
arrived, and no request follows from what they hold.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ciphershift.client import images as image_arrays
from ciphershift.client._following import Observer, follow
from ciphershift.client._progress import ProgressBar
from ciphershift.client._requests import Call, Steps, Upload
from ciphershift.client._retrying import Exchange
from ciphershift.client._wire import ModelProfile, parse_answer, parse_models, read, submit_call
from ciphershift.client.jobs import JobList, JobStatus, Receipt, Receipts, job_path
from ciphershift.client.keystore import KeyPair, Keystore
from ciphershift.client.timings import Timings, Traffic
from ciphershift.errors import (
    BadShapeError,
    CiphershiftError,
    InsecureParamsError,
    RefusedParamsError,
    UnknownKeyError,
    UnknownModelError,
    WrongKeyError,
)
from ciphershift.he_layers.crypto import ckks
from ciphershift.he_layers.crypto.ciphertexts import Binding, PackedAnswer

JOBS_AHEAD = 2  # while one is computed, the next one waits: the server never waits for the client
_ANSWER_EXTRA_BYTES = 64 << 10  # what an answer holds beside its ciphertexts

FloatArray = NDArray[np.float64]


class Session:
    """One client's view of one model: its profile, its keys, its jobs, and the steps of a prediction."""

    def __init__(
        self,
        model: str | None,
        keystore: Keystore,
        *,
        patience_seconds: float = 60.0,
        accept_block_keys: bool = True,
        allow_toy_parameters: bool = False,
        show_progress: bool = False,
    ) -> None:
        """Takes note; nothing is sent or made yet."""
        self.timings = Timings()
        self.traffic = Traffic()
        self._model = model
        self._keystore = keystore
        self._receipts = Receipts(keystore.folder / "jobs")
        self._exchange = Exchange(patience_seconds)
        self._accept_block_keys = accept_block_keys
        self._allow_toy_parameters = allow_toy_parameters
        self._show_progress = show_progress
        self._profile: ModelProfile | None = None
        self._keys: KeyPair | None = None

    def close(self) -> None:
        """Erases the secret keys from memory."""
        if self._keys is not None:
            self._keys.client_keys.erase()
            self._keys = None

    def models(self) -> Steps[list[str]]:
        """Asks for the names of the models that are served."""
        return parse_models((yield from self._exchange(Call(method="GET", path="/v2/models"))))

    def profile(self) -> Steps[ModelProfile]:
        """Asks for the model's profile, once.

        Raises:
            UnknownModelError: no such model, or several and none was named.
            UnknownParamsError: the model's parameter set is not in this installation's registry.
            InsecureParamsError: the parameter set is a TOY set.
            RefusedParamsError: its small key is in blocks, and this client does not accept that.
        """
        if self._profile is None:
            name = self._model or (yield from self._only_model())
            response = yield from self._exchange(Call(method="GET", path=f"/v2/models/{quote(name, safe='')}/profile"))
            profile = read(ModelProfile, response.content)
            if profile.params.is_toy and not self._allow_toy_parameters:
                raise InsecureParamsError(f"{profile.model} uses {profile.params.name}, which protects nothing")
            if profile.params.block_length > 1 and not self._accept_block_keys:
                raise RefusedParamsError(
                    f"{profile.model} is served under {profile.params.name}, whose small key is in blocks of {profile.params.block_length} "
                    "bits: accept_block_keys=True accepts it, a server with CIPHERSHIFT_PARAMETER_SETS=own does without"
                )
            self._profile = profile
        return self._profile

    def prepare(self) -> Steps[KeyPair]:
        """Makes the keys, if there are none yet, and brings the evaluation keys to the server, if it lacks them."""
        with self._bar() as bar:
            return (yield from self._prepare(bar))

    def predict(self, images: ArrayLike, timeout: float | None) -> Steps[FloatArray]:
        """Returns the logits [n, classes] of images, sent in as few jobs as the server takes them in."""
        self.timings = Timings()
        profile = yield from self.profile()
        batch = image_arrays.to_levels(images, profile)
        with self._bar() as bar:
            with self.timings.measure("keys"):
                keys = yield from self._prepare(bar)
            bar.jobs(profile.bootstraps * len(batch))
            answers = yield from self._run(batch, profile, keys, bar.job, timeout)
        return np.concatenate([self._read(receipt, answer, keys) for receipt, answer in answers])

    def submit(self, images: ArrayLike) -> Steps[JobStatus]:
        """Makes one job of images and returns at once; what reads its answer is kept on disk."""
        self.timings = Timings()
        profile = yield from self.profile()
        batch = image_arrays.to_levels(images, profile)
        if len(batch) > profile.max_batch:
            raise BadShapeError(
                f"one job takes 1 to {profile.max_batch} images, got {len(batch)}: submit several jobs, or use predict"
            )
        with self._bar() as bar, self.timings.measure("keys"):
            keys = yield from self._prepare(bar)
        receipt, status = yield from self._submit(batch, profile, keys)
        self._receipts.keep(receipt)
        return status

    def wait(self, job_id: str, timeout: float | None, observe: Observer | None) -> Steps[JobStatus]:
        """Follows a job to its end, however it ends."""
        status = yield from self.status(job_id)
        if status.is_finished:
            return status
        with self._bar() as bar, self.timings.measure("transfer"):
            bar.jobs(status.progress.bootstraps_total)

            def both(status: JobStatus) -> None:
                bar.job(status)
                if observe:
                    observe(status)

            return (yield from follow(self._exchange, job_id, timeout, both))

    def result(self, job_id: str, timeout: float | None) -> Steps[FloatArray]:
        """Returns the logits [n, classes] of a job, when it has them.

        Raises:
            UnknownJobError: it was not submitted with this keystore.
            CanceledError, ExpiredError: there is no answer any more.
            DeadlineError: it is not finished in time.
            CiphershiftError: the job failed; the error is its own.
        """
        receipt = self.receipt(job_id)
        keys = self._keystore.open(receipt.profile.params)
        if keys.key_id != receipt.key_id:
            raise WrongKeyError(
                f"job {receipt.job_id} was encrypted under keys {receipt.key_id}, which are no longer in {self._keystore.folder}"
            )
        status = yield from self.wait(receipt.job_id, timeout, None)
        with self.timings.measure("transfer"):
            answer = yield from self._fetch(receipt, status)
        return self._read(receipt, answer, keys)

    def status(self, job_id: str) -> Steps[JobStatus]:
        """Asks how a job is doing."""
        return read(JobStatus, (yield from self._exchange(Call(method="GET", path=job_path(job_id)))).content)

    def cancel(self, job_id: str) -> Steps[JobStatus]:
        """Ends a job, or forgets the answer of one that is finished."""
        response = yield from self._exchange(Call(method="DELETE", path=job_path(job_id)))
        return read(JobStatus, response.content)

    def jobs(self, limit: int) -> Steps[Sequence[JobStatus]]:
        """Asks for the tenant's jobs, newest first."""
        call = Call(method="GET", path=f"/v2/jobs?limit={limit}", answer_limit=limit * (8 << 10) + 1024)
        return read(JobList, (yield from self._exchange(call)).content).jobs

    def receipt(self, job_id: str) -> Receipt:
        """Returns the receipt of a job that was submitted with this keystore."""
        return self._receipts.find(job_id)

    def _run(
        self, batch: FloatArray, profile: ModelProfile, keys: KeyPair, observe: Observer, timeout: float | None
    ) -> Steps[list[tuple[Receipt, httpx.Response]]]:
        """Returns the answers to a batch, cut into jobs; those that are not needed any more are canceled."""
        waiting = deque(batch[i : i + profile.max_batch] for i in range(0, len(batch), profile.max_batch))
        running: deque[Receipt] = deque()
        answers = []
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while waiting or running:
                if waiting and len(running) < JOBS_AHEAD:
                    running.append((yield from self._submit(waiting.popleft(), profile, keys))[0])
                    continue
                left = None if end is None else end - time.monotonic()
                with self.timings.measure("transfer"):
                    status = yield from follow(self._exchange, running[0].job_id, left, observe)
                    answers.append((running[0], (yield from self._fetch(running[0], status))))
                running.popleft()
        except (Exception, KeyboardInterrupt, asyncio.CancelledError):
            for receipt in running:
                with suppress(CiphershiftError):
                    yield Call(method="DELETE", path=job_path(receipt.job_id), silence_seconds=2.0)
            raise
        return answers

    def _submit(self, batch: FloatArray, profile: ModelProfile, keys: KeyPair) -> Steps[tuple[Receipt, JobStatus]]:
        with self.timings.measure("encrypt"):
            ciphertexts = [ckks.encrypt(keys.client_keys, keys.key_id, image * profile.input_delta) for image in batch]
            containers = tuple(ciphertext.to_bytes() for ciphertext in ciphertexts)
        request_id, call = submit_call(profile, keys.key_id, containers)
        with self.timings.measure("transfer"):
            try:
                response = yield from self._exchange(call)
            except UnknownKeyError:  # the server has dropped the keys since they were uploaded
                yield from self._upload(keys, lambda _: None)
                response = yield from self._exchange(call)
        self.traffic = Traffic(sent=len(call.content), ciphertexts=containers)
        status = read(JobStatus, response.content)
        receipt = Receipt(
            job_id=status.id,
            request_id=request_id,
            key_id=keys.key_id,
            profile=profile,
            requests=tuple(Binding.of([ciphertext], profile.program_digest).request for ciphertext in ciphertexts),
        )
        return receipt, status

    def _fetch(self, receipt: Receipt, status: JobStatus) -> Steps[httpx.Response]:
        if status.state == "failed":
            raise status.failure()
        limit = len(receipt.requests) * (receipt.profile.download_bytes + 4) + _ANSWER_EXTRA_BYTES
        call = Call(method="GET", path=f"{job_path(receipt.job_id)}/result", answer_limit=limit)
        response = yield from self._exchange(call)
        self.traffic.received = len(response.content)
        return response

    def _read(self, receipt: Receipt, response: httpx.Response, keys: KeyPair) -> FloatArray:
        profile = receipt.profile
        answer = parse_answer(response, receipt.request_id, len(receipt.requests))
        # A job that nobody waited for has been computed in nobody's time.
        self.timings.transfer = max(self.timings.transfer - answer.server_seconds, 0.0)
        self.timings.server += answer.server_seconds
        with self.timings.measure("decrypt"):
            rows = []
            for data, request in zip(answer.logits, receipt.requests, strict=True):
                binding = Binding(key_id=keys.key_id, request=request, program=profile.program_digest)
                packed = PackedAnswer.from_bytes(data, profile.params, binding, len(profile.classes))
                rows.append(profile.logits(ckks.decrypt(keys.client_keys, packed)))
            return np.stack(rows)

    def _prepare(self, bar: ProgressBar) -> Steps[KeyPair]:
        if self._keys is None:
            profile = yield from self.profile()
            bar.say("keys")
            keys = self._keystore.open(profile.params)
            try:
                yield from self._exchange(Call(method="GET", path=f"/v2/keys/{keys.key_id}"))
            except UnknownKeyError:
                bar.upload(keys.evaluation_keys.stat().st_size)
                yield from self._upload(keys, bar.uploaded)
            self._keys = keys
        return self._keys

    def _upload(self, keys: KeyPair, sent: Callable[[int], None]) -> Steps[None]:
        yield from self._exchange(
            Call(method="PUT", path=f"/v2/keys/{keys.key_id}", content=Upload(keys.evaluation_keys, sent))
        )

    def _only_model(self) -> Steps[str]:
        names = yield from self.models()
        if len(names) != 1:
            raise UnknownModelError(f"name one of the server's models: {', '.join(names) or 'it has none'}")
        return names[0]

    def _bar(self) -> ProgressBar:
        return ProgressBar(shown=self._show_progress)
