"""What a client does, as generators that yield calls and pauses: the sync and the async client drive the same steps.

Nothing that is sent depends on anything that was decrypted: decryption comes last, and no request follows from its result.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from client import images as image_arrays
from client.keystore import KeyPair, Keystore
from client.protocol import Call, InferAnswer, ModelProfile, error_of, infer_call, parse_infer, parse_models
from he_layers.crypto import ckks
from he_layers.crypto.ciphertexts import Binding, PackedAnswer
from he_layers.crypto.errors import InsecureParamsError, UnknownKeyError, UnknownModelError

RETRIED = (429, 502, 503, 504)
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait before the next call."""

    seconds: float


Step = Call | Pause


@dataclass(slots=True)
class Timings:
    """Seconds of one prediction by stage, summed over its images."""

    keys: float = 0.0
    encrypt: float = 0.0
    transfer: float = 0.0
    server: float = 0.0
    decrypt: float = 0.0

    def stages(self) -> dict[str, float]:
        """Seconds by the name of the stage, in order."""
        return asdict(self)

    @property
    def total(self) -> float:
        """All stages together."""
        return sum(self.stages().values())

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to a stage."""
        started = time.perf_counter()
        yield
        setattr(self, stage, getattr(self, stage) + time.perf_counter() - started)


@dataclass(slots=True)
class Traffic:
    """Bytes of the bodies of one inference request and of its answer."""

    sent: int = 0
    received: int = 0


class Session:
    """One client's view of one model: its profile, its keys, and the steps of a prediction."""

    def __init__(
        self, model: str | None, keystore: Keystore, *, allow_toy_parameters: bool, show_progress: bool
    ) -> None:
        """Takes note; nothing is sent or made yet."""
        self.timings = Timings()
        self.traffic = Traffic()
        self._model = model
        self._keystore = keystore
        self._allow_toy_parameters = allow_toy_parameters
        self._show_progress = show_progress
        self._profile: ModelProfile | None = None
        self._keys: KeyPair | None = None

    def profile(self) -> Generator[Step, httpx.Response, ModelProfile]:
        """Asks for the model's profile, once.

        Raises:
            UnknownModelError: no such model, or several and none was named.
            UnknownParamsError: the model's parameter set is not in this installation's registry.
            InsecureParamsError: the parameter set is a TOY set.
        """
        if self._profile is None:
            name = self._model or (yield from self._only_model())
            profile = ModelProfile.parse((yield from _exchange(Call(method="GET", path=f"/v2/models/{name}/profile"))))
            if profile.params.is_toy and not self._allow_toy_parameters:
                raise InsecureParamsError(f"{profile.model} uses {profile.params.name}, which protects nothing")
            self._profile = profile
        return self._profile

    def prepare(self) -> Generator[Step, httpx.Response, KeyPair]:
        """Makes the keys, if there are none yet, and brings the evaluation keys to the server, if it lacks them."""
        if self._keys is None:
            profile = yield from self.profile()
            keys = self._keystore.open(profile.params)
            try:
                yield from _exchange(Call(method="HEAD", path=f"/v2/keys/{keys.key_id}"))
            except UnknownKeyError:
                yield from _upload(keys)
            self._keys = keys
        return self._keys

    def predict(self, images: ArrayLike) -> Generator[Step, httpx.Response, NDArray[np.float64]]:
        """Returns the logits [n, classes] of images, each encrypted and sent on its own."""
        self.timings = timings = Timings()
        profile = yield from self.profile()
        batch = image_arrays.to_levels(images, profile)
        with self._progress() as progress:
            task = progress.add_task("keys", total=len(batch))
            with timings.measure("keys"):
                keys = yield from self.prepare()
            rows = []
            for image in batch:
                progress.update(task, description="encrypted inference")
                rows.append((yield from self._predict_one(image, profile, keys, timings)))
                progress.advance(task)
        return np.stack(rows)

    def _predict_one(
        self, image: NDArray[np.float64], profile: ModelProfile, keys: KeyPair, timings: Timings
    ) -> Generator[Step, httpx.Response, NDArray[np.float64]]:
        with timings.measure("encrypt"):
            ciphertext = ckks.encrypt(keys.client_keys, keys.key_id, image * profile.input_delta)
        with timings.measure("transfer"):
            answer = yield from self._infer(profile, keys, ciphertext.to_bytes())
        timings.transfer -= answer.server_seconds
        timings.server += answer.server_seconds
        with timings.measure("decrypt"):
            binding = Binding.of([ciphertext], profile.program_digest)
            packed = PackedAnswer.from_bytes(answer.logits, profile.params, binding, len(profile.classes))
            return profile.logits(ckks.decrypt(keys.client_keys, packed))

    def _infer(
        self, profile: ModelProfile, keys: KeyPair, ciphertext: bytes
    ) -> Generator[Step, httpx.Response, InferAnswer]:
        request_id, call = infer_call(profile, keys.key_id, ciphertext)
        try:
            response = yield from _exchange(call)
        except UnknownKeyError:  # the server has dropped the keys since they were uploaded
            yield from _upload(keys)
            response = yield from _exchange(call)
        self.traffic = Traffic(sent=len(call.content), received=len(response.content))
        return parse_infer(response, request_id)

    def _only_model(self) -> Generator[Step, httpx.Response, str]:
        names = parse_models((yield from _exchange(Call(method="GET", path="/v2/models"))))
        if len(names) != 1:
            raise UnknownModelError(f"name one of the server's models: {', '.join(names) or 'it has none'}")
        return names[0]

    def _progress(self) -> Progress:
        console = Console(stderr=True)
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (self._show_progress and console.is_terminal),
        )


def _upload(keys: KeyPair) -> Generator[Step, httpx.Response, None]:
    yield from _exchange(Call(method="PUT", path=f"/v2/keys/{keys.key_id}", content=keys.evaluation_keys.read_bytes()))


def _exchange(call: Call) -> Generator[Step, httpx.Response, httpx.Response]:
    """Sends a call until it succeeds, fails for good, or has been tried often enough."""
    for attempt in range(ATTEMPTS):
        response = yield call
        if response.is_success:
            return response
        if response.status_code not in RETRIED or attempt == ATTEMPTS - 1:
            break
        yield Pause(_retry_seconds(response, attempt))
    raise error_of(response)


def _retry_seconds(response: httpx.Response, attempt: int) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 60.0) if asked.isdecimal() else 0.5 * 2.0**attempt
