"""What a client does, sans-I/O: generators of requests and sleeps, which a sync or an async transport carries out.

Nothing that is sent depends on anything that was decrypted, nor on whether it could be: answers are decrypted when all have arrived,
and no request follows. Only a public part of an answer, the digest of the model that made it, can make the client ask again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ciphershift.client import images as image_arrays
from ciphershift.client._progress import ProgressBar
from ciphershift.client._receipts import Receipt, Receipts
from ciphershift.client._requests import Deadline, Request, Retrying, Steps, Upload, submission
from ciphershift.client._sse import Observer, follow
from ciphershift.client._stems import Stems, opened
from ciphershift.client._wire import ModelProfile, Prediction, StemProfile, parse_answer, parse_models, read
from ciphershift.client.jobs import JobList, JobStatus, job_path
from ciphershift.client.keystore import KeyPair, Keystore
from ciphershift.client.timings import Cost, Timings, Traffic
from ciphershift.errors import (
    BadShapeError,
    CiphershiftError,
    InsecureParamsError,
    ModelChangedError,
    RefusedParamsError,
    UnknownKeyError,
    UnknownModelError,
    WrongAnswerError,
    WrongKeyError,
)
from ciphershift.he_layers.crypto import ckks
from ciphershift.he_layers.crypto.ciphertexts import Binding, PackedAnswer, ciphertext_type
from ciphershift.he_layers.stem import Stem
from ciphershift.protocol import scaling

JOBS_AHEAD = 2  # one is computed while the next one waits, so that the server never waits for the client
_ANSWER_EXTRA_BYTES = 64 << 10  # of an answer, beside its ciphertexts

FloatArray = NDArray[np.float64]


class Session:
    """One client's state for one model: profile, keys and receipts; and the steps of its operations."""

    def __init__(
        self,
        model: str | None,
        keystore: Keystore,
        *,
        retry_timeout: float = 60.0,
        accept_block_keys: bool = True,
        allow_toy_parameters: bool = False,
        show_progress: bool = False,
    ) -> None:
        self.cost = Cost()  # of the last prediction or job
        self._model = model
        self._keystore = keystore
        self._receipts = Receipts(keystore.folder / "jobs")
        self._retrying = Retrying(retry_timeout)
        self._accept_block_keys = accept_block_keys
        self._allow_toy_parameters = allow_toy_parameters
        self._show_progress = show_progress
        self._profile: ModelProfile | None = None
        self._stems = Stems(keystore.folder / "stems")
        # What the profile said of the last stem, and the stem.
        self._stem: tuple[tuple[StemProfile, tuple[int, ...]], Stem] | None = None
        self._keys: dict[str, KeyPair] = {}  # those that the server has, by parameter set

    def close(self) -> None:
        """Erases the secret keys from memory."""
        for pair in self._keys.values():
            pair.client_keys.erase()
        self._keys.clear()

    def models(self) -> Steps[list[str]]:
        """Asks for the names of the models that are served."""
        return parse_models((yield from self._retrying(Request(method="GET", path="/v2/models"))))

    def profile(self) -> Steps[ModelProfile]:
        """Asks for the model's profile, once.

        Raises:
            UnknownModelError: no such model, or several and none was named.
            UnknownParamsError: the model's parameter set is not in this installation's registry.
            InsecureParamsError: the parameter set is a TOY set.
            MalformedError: it is no profile, or names sizes that do not follow from its parameters and shape.
            RefusedParamsError: its small key is in blocks, and this client does not accept that.
        """
        if self._profile is None:
            name = self._model or (yield from self._only_model())
            response = yield from self._retrying(
                Request(method="GET", path=f"/v2/models/{quote(name, safe='')}/profile")
            )
            profile = read(ModelProfile, response.content)
            if profile.params.is_toy and not self._allow_toy_parameters:
                raise InsecureParamsError(f"{profile.model} uses {profile.params.name}, which protects nothing")
            if profile.params.block_length > 1 and not self._accept_block_keys:
                raise RefusedParamsError(
                    f"{profile.model} is served under {profile.params.name}, whose small key is in blocks of {profile.params.block_length} "
                    "bits: accept_block_keys=True accepts it, a server with CIPHERSHIFT_PARAMETER_SETS=own does without"
                )
            profile.require_consistent()
            self._profile = profile
        return self._profile

    def prepare(self) -> Steps[KeyPair]:
        """Makes the keys, if there are none yet, and uploads the evaluation keys, if the server lacks them."""
        with self._bar() as bar:
            return (yield from self._prepare((yield from self.profile()), bar))

    def predict(self, images: ArrayLike, timeout: float | None) -> Steps[Prediction]:
        """Returns the logits [n, classes] of images, by name of the output if there are several."""
        profile = yield from self.profile()
        logits = yield from self.predict_all(images, timeout)
        return (self._profile or profile).named(logits)

    def predict_all(self, images: ArrayLike, timeout: float | None) -> Steps[FloatArray]:
        """Returns the values of all outputs [n, classes] of images, sent in as few jobs as the server's batch limit allows.

        They are sent once more if the server replaced the model or lost the keys meanwhile.
        """
        known = self._profile
        try:
            return (yield from self._predict(images, timeout))
        except (ModelChangedError, UnknownKeyError):
            # Nothing was computed; the next job brings the keys, if they were lost.
            self._profile = None
        except WrongAnswerError:
            # Perhaps the server has loaded another version of the model since its profile was read.
            self._profile = None
            profile = yield from self.profile()
            if known is None or profile.program_digest == known.program_digest:
                raise
        return (yield from self._predict(images, timeout))

    def predict_proba(self, images: ArrayLike, timeout: float | None) -> Steps[Prediction]:
        """Returns what the module gives, as `predict`: softmax or sigmoid of the logits, computed here."""
        profile = yield from self.profile()
        profile.probabilities(
            np.zeros((1, len(profile.classes)))
        )  # a model without one is refused before anything is sent
        logits = yield from self.predict_all(images, timeout)
        return (self._profile or profile).probabilities(logits)

    def submit(self, images: ArrayLike) -> Steps[tuple[JobStatus, Cost]]:
        """Makes one job of images and returns at once; its receipt is kept on disk."""
        self.cost = cost = Cost()
        profile = yield from self.profile()
        batch = yield from self._levels(images, profile, cost.timings)
        if len(batch) > profile.max_batch:
            raise BadShapeError(
                f"one job takes 1 to {profile.max_batch} images, got {len(batch)}: submit several jobs, or use predict"
            )
        with self._bar() as bar, cost.timings.measure("keys"):
            keys = yield from self._prepare(profile, bar)
        receipt, status = yield from self._submit(batch, profile, keys, cost)
        self._receipts.keep(receipt)
        return status, cost

    def wait(self, job_id: str, timeout: float | None, observe: Observer | None, timings: Timings) -> Steps[JobStatus]:
        """Follows a job to its end, however it ends."""
        status = yield from self.status(job_id)
        if status.is_finished:
            return status
        with self._bar() as bar, timings.measure("transfer"):
            bar.jobs(status.progress.bootstraps_total)

            def both(status: JobStatus) -> None:
                bar.job(status)
                if observe:
                    observe(status)

            return (yield from follow(self._retrying, job_id, Deadline.after(timeout), both))

    def result(self, job_id: str, timeout: float | None, cost: Cost) -> Steps[Prediction]:
        """Returns the logits [n, classes] of a job, when it has them, by name of the output if there are several.

        Raises:
            UnknownJobError: it was not submitted with this keystore.
            CanceledError, ExpiredError: the answer is gone.
            DeadlineError: it is not finished in time.
            CiphershiftError: the job failed with this error.
        """
        receipt = self.receipt(job_id)
        keys = self._keystore.open(receipt.profile.params)
        if keys.key_id != receipt.key_id:
            raise WrongKeyError(
                f"job {receipt.job_id} was encrypted under keys {receipt.key_id}, which are no longer in {self._keystore.folder}"
            )
        status = yield from self.wait(receipt.job_id, timeout, None, cost.timings)
        try:
            with cost.timings.measure("transfer"):
                response = yield from self._fetch(receipt, status, cost.traffic)
            answer = self._parse(receipt, response, cost.timings)
        except (ModelChangedError, WrongAnswerError):
            self._profile = None  # read again before the next job
            raise
        return receipt.profile.named(self._decrypt(receipt, answer, keys, cost.timings))

    def status(self, job_id: str) -> Steps[JobStatus]:
        """Asks how a job is doing."""
        return read(JobStatus, (yield from self._retrying(Request(method="GET", path=job_path(job_id)))).content)

    def cancel(self, job_id: str) -> Steps[JobStatus]:
        """Cancels a job, or deletes the answer of a finished one."""
        response = yield from self._retrying(Request(method="DELETE", path=job_path(job_id)))
        return read(JobStatus, response.content)

    def jobs(self, limit: int) -> Steps[Sequence[JobStatus]]:
        """Asks for the tenant's jobs, newest first."""
        request = Request(method="GET", path=f"/v2/jobs?limit={limit}", answer_limit=limit * (8 << 10) + 1024)
        return read(JobList, (yield from self._retrying(request)).content).jobs

    def receipt(self, job_id: str) -> Receipt:
        """Returns the receipt of a job that was submitted with this keystore."""
        return self._receipts.find(job_id)

    def _predict(self, images: ArrayLike, timeout: float | None) -> Steps[FloatArray]:
        self.cost = cost = Cost()
        profile = yield from self.profile()
        batch = yield from self._levels(images, profile, cost.timings)
        with self._bar() as bar:
            with cost.timings.measure("keys"):
                keys = yield from self._prepare(profile, bar)
            bar.jobs(profile.bootstraps * len(batch))
            responses = yield from self._run(batch, profile, keys, bar.job, timeout, cost)
        answers = [(receipt, self._parse(receipt, response, cost.timings)) for receipt, response in responses]
        return np.concatenate([self._decrypt(receipt, answer, keys, cost.timings) for receipt, answer in answers])

    def _run(
        self,
        batch: FloatArray,
        profile: ModelProfile,
        keys: KeyPair,
        observe: Observer,
        timeout: float | None,
        cost: Cost,
    ) -> Steps[list[tuple[Receipt, httpx.Response]]]:
        """Returns the answers to a batch, split into jobs; if one fails, the others are canceled."""
        waiting = deque(batch[i : i + profile.max_batch] for i in range(0, len(batch), profile.max_batch))
        running: deque[Receipt] = deque()
        answers = []
        deadline = Deadline.after(timeout)
        try:
            while waiting or running:
                if waiting and len(running) < JOBS_AHEAD:
                    running.append((yield from self._submit(waiting.popleft(), profile, keys, cost))[0])
                    continue
                with cost.timings.measure("transfer"):
                    status = yield from follow(self._retrying, running[0].job_id, deadline, observe)
                    answers.append((running[0], (yield from self._fetch(running[0], status, cost.traffic))))
                running.popleft()
        except (Exception, KeyboardInterrupt, asyncio.CancelledError):
            for receipt in running:
                with suppress(CiphershiftError):
                    yield Request(method="DELETE", path=job_path(receipt.job_id), silence_seconds=2.0)
            raise
        return answers

    def _submit(
        self, batch: FloatArray, profile: ModelProfile, keys: KeyPair, cost: Cost
    ) -> Steps[tuple[Receipt, JobStatus]]:
        with cost.timings.measure("encrypt"):
            kind = ciphertext_type(profile.bootstraps)
            ciphertexts = [
                ckks.encrypt(keys.client_keys, keys.key_id, image * profile.input_delta, kind) for image in batch
            ]
            containers = tuple(ciphertext.to_bytes() for ciphertext in ciphertexts)
        request_id, request = submission(profile, keys.key_id, containers)
        with cost.timings.measure("transfer"):
            try:
                response = yield from self._retrying(request)
            except UnknownKeyError:  # the server has dropped the keys since they were uploaded
                yield from self._upload(keys, lambda _: None)
                response = yield from self._retrying(request)
        cost.traffic.sent, cost.traffic.ciphertexts = len(request.content), containers
        status = read(JobStatus, response.content)
        receipt = Receipt(
            job_id=status.id,
            request_id=request_id,
            key_id=keys.key_id,
            profile=profile,
            requests=tuple(Binding.of([ciphertext], profile.program_digest).request for ciphertext in ciphertexts),
        )
        return receipt, status

    def _fetch(self, receipt: Receipt, status: JobStatus, traffic: Traffic) -> Steps[httpx.Response]:
        if status.state == "failed":
            raise status.failure()
        limit = len(receipt.requests) * (receipt.profile.download_bytes + 4) + _ANSWER_EXTRA_BYTES
        request = Request(method="GET", path=f"{job_path(receipt.job_id)}/result", answer_limit=limit)
        response = yield from self._retrying(request)
        traffic.received = len(response.content)
        return response

    def _parse(self, receipt: Receipt, response: httpx.Response, timings: Timings) -> list[PackedAnswer]:
        """Reads the public parts of an answer; needs no secret.

        Raises:
            WrongAnswerError: it answers another request, or another version of the model made it.
            WireError, KeyMismatchError, NotConformantError: it is not an answer to this job.
        """
        profile = receipt.profile
        answer = parse_answer(response, receipt.request_id, len(receipt.requests))
        # Server time can exceed the time that we waited: clamp at zero.
        timings.transfer = max(timings.transfer - answer.server_seconds, 0.0)
        timings.server += answer.server_seconds
        bindings = [
            Binding(key_id=receipt.key_id, request=request, program=profile.program_digest)
            for request in receipt.requests
        ]
        return [
            PackedAnswer.from_bytes(data, profile.params, binding, profile.answer_values)
            for data, binding in zip(answer.logits, bindings, strict=True)
        ]

    def _decrypt(self, receipt: Receipt, answer: Sequence[PackedAnswer], keys: KeyPair, timings: Timings) -> FloatArray:
        with timings.measure("decrypt"):
            return np.stack([receipt.profile.logits(ckks.decrypt(keys.client_keys, packed)) for packed in answer])

    def _levels(self, images: ArrayLike, profile: ModelProfile, timings: Timings) -> Steps[FloatArray]:
        """Returns what is encrypted, [n, values]: the images themselves, or what the model's public part makes of them."""
        if profile.encoding is not None:
            return image_arrays.to_integers(images, profile)
        unit = image_arrays.to_unit(images, profile)
        if profile.stem:
            stem = yield from self._opened_stem(profile, profile.stem)
            with timings.measure("encrypt"):
                unit = stem.unit(unit)
        return scaling.to_integers(unit, profile.input_levels).reshape(len(unit), -1)

    def _opened_stem(self, profile: ModelProfile, stem: StemProfile) -> Steps[Stem]:
        """Returns the public part from memory, from disk, or from the server; it is checked in every case.

        The same file may have other ranges after the owner has converted the model again: the profile's are used.
        """
        said = (stem, profile.input_shape)
        if self._stem is None or self._stem[0] != said:
            found = self._stems.find(profile, stem)
            if found is None:
                path = f"/v2/models/{profile.model}/stem"
                response = yield from self._retrying(Request(method="GET", path=path, answer_limit=stem.bytes))
                found = opened(response.content, profile, stem)
                self._stems.keep(stem, response.content)
            self._stem = (said, found)
        return self._stem[1]

    def _prepare(self, profile: ModelProfile, bar: ProgressBar) -> Steps[KeyPair]:
        if profile.params_id not in self._keys:
            if not self._keystore.has(profile.params):
                bar.say("making keys")
            keys = self._keystore.open(profile.params)
            try:
                yield from self._retrying(Request(method="GET", path=f"/v2/keys/{keys.key_id}"))
            except UnknownKeyError:
                bar.upload(keys.evaluation_keys.stat().st_size)
                yield from self._upload(keys, bar.uploaded)
            self._keys[profile.params_id] = keys
        return self._keys[profile.params_id]

    def _upload(self, keys: KeyPair, sent: Callable[[int], None]) -> Steps[None]:
        content = Upload(keys.evaluation_keys, sent)
        yield from self._retrying(Request(method="PUT", path=f"/v2/keys/{keys.key_id}", content=content))

    def _only_model(self) -> Steps[str]:
        names = yield from self.models()
        if len(names) != 1:
            raise UnknownModelError(f"name one of the server's models: {', '.join(names[:20]) or 'it has none'}")
        return names[0]

    def _bar(self) -> ProgressBar:
        return ProgressBar(shown=self._show_progress)
