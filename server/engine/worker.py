"""A worker: container -> keys and ciphertexts -> layers -> container, from a checkpoint on if a worker died over the same task.

It gets paths, ids and bytes; no request, no secret. Expanded keys are cached, and the least recently used are dropped.
"""

from __future__ import annotations

import mmap
import os
import resource
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ciphershift.errors import (
    DeadlineError,
    KeyMismatchError,
    ModelChangedError,
    ParameterError,
    UnknownKeyError,
    WireError,
)
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys, ServerKeys
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.evaluate import State
from ciphershift.protocol import container
from ciphershift.protocol.container import Bytes
from ciphershift.server.engine.base import LayerProgress, Task, TaskResult, WorkerState
from ciphershift.server.engine.checkpoint import Checkpoint
from ciphershift.server.repository import Model, Repository
from ciphershift.server.settings import Settings

CHECKPOINT_SHARE = 0.05
"""Of a worker's time, at most, for writing checkpoints."""


class ExpandedKeys(Protocol):
    """Keys that a worker computes with."""

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""


K = TypeVar("K", bound=ExpandedKeys)


class Worker(ABC, Generic[K]):
    """The models and the expanded keys of one worker."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Loads every model.

        Args:
            settings: `models`, and `worker_key_bytes` of the key cache.
            threads: kernel threads.
        """
        self._settings = settings
        self._threads = threads
        self._models = Repository(settings)
        self._keys: OrderedDict[tuple[str, str], K] = OrderedDict()
        self._hits = self._misses = 0

    @property
    def state(self) -> WorkerState:
        """Memory and key cache."""
        return WorkerState(
            rss_bytes=resident_bytes(),
            key_cache_bytes=self._cached_bytes(),
            key_cache_hits=self._hits,
            key_cache_misses=self._misses,
        )

    def run(self, task: Task) -> Iterator[LayerProgress | TaskResult]:
        """Evaluates a task; stop iterating to cancel it.

        Yields:
            A LayerProgress after each layer, of the images that are evaluated together; the last item is the TaskResult.

        Raises:
            DeadlineError: the deadline passed.
            CiphershiftError: keys or images are not acceptable.
        """
        model = self._model(task)
        started = saved = time.perf_counter()
        read = model.ciphertext_type.from_bytes
        images = [read(image, model.params, task.key_id, model.pixels) for image in task.images]
        keys = self._server_keys(task, model)
        key_seconds = time.perf_counter() - started
        checkpoint = self._checkpoint(task, model)
        logits, state, pause = list(checkpoint.answers), checkpoint.state, self._settings.checkpoint_seconds
        del checkpoint
        together, each = self._images_together(model), model.program.lookups
        saved_lookups = len(logits) * each + (state.lookups * min(together, len(images) - len(logits)) if state else 0)
        for start in range(len(logits), len(images), together):
            batch, before = images[start : start + together], 0.0
            for progress in self._evaluate(model, keys, batch, state):
                state = None
                logits += [answer.to_bytes() for answer in progress.answers]
                lookups = start * each + len(batch) * progress.lookups_done
                yield LayerProgress(
                    layer=progress.layer,
                    seconds=progress.seconds - before,
                    lookups_done=lookups,
                    lookups_saved=saved_lookups,
                    images_done=len(logits),
                )
                if time.time() > task.deadline:
                    raise DeadlineError(f"the deadline of the job passed in {progress.layer}")
                before, now = progress.seconds, time.perf_counter()
                savable = progress.snapshot is not None or bool(progress.answers)
                if savable and now - saved >= pause:
                    if _reached(logits, progress, together).write(task, model.params.id):
                        saved_lookups = lookups
                    saved = time.perf_counter()
                    pause = max(pause, (saved - now) / CHECKPOINT_SHARE)
        yield TaskResult(logits=tuple(logits), seconds=time.perf_counter() - started, key_seconds=key_seconds)

    @abstractmethod
    def _expand(self, task: Task, model: Model) -> K:
        """Expands the task's bundle of keys."""

    @abstractmethod
    def _evaluate(
        self, model: Model, keys: K, images: Sequence[CkksCiphertext], start: State[LweCiphertextList] | None
    ) -> Iterator[evaluate.Progress]:
        """Evaluates images, no more than _images_together, side by side; from a state on that an earlier call gave, or from the images."""

    def _images_together(self, model: Model) -> int:
        """How many images are evaluated side by side."""
        return 1

    def _checkpoint(self, task: Task, model: Model) -> Checkpoint:
        """What another worker has left of the task, as far as this one can go on from it."""
        return Checkpoint.read(task, model.params.id, self._images_together(model))

    def _model(self, task: Task) -> Model:
        """The model that the job was accepted for; loaded again if the folder holds another version."""
        name = task.model
        model = self._models[name] if name in self._models else self._models.load(name)
        if model.program.digest != task.model_digest:
            model = self._models.load(name)
        if model.program.digest == task.model_digest:
            return model
        raise ModelChangedError(f"model {name} has changed since the job was accepted: send it again")

    def _server_keys(self, task: Task, model: Model) -> K:
        name = (task.key_id, model.params.id)
        keys = self._keys.pop(name, None)
        if keys is None:
            self._misses += 1
            keys = self._expand(task, model)
        else:
            self._hits += 1
        self._keys[name] = keys
        while len(self._keys) > 1 and self._cached_bytes() > self._settings.worker_key_bytes:
            self._keys.popitem(last=False)
        return keys

    def _cached_bytes(self) -> int:
        return sum(keys.nbytes for keys in self._keys.values())


class KernelWorker(Worker[ServerKeys]):
    """Computes with the native kernel."""

    def _expand(self, task: Task, model: Model) -> ServerKeys:
        return load_bundle(read_bundle(task), task, model.params).expand(self._threads)

    def _evaluate(
        self, model: Model, keys: ServerKeys, images: Sequence[CkksCiphertext], start: State[LweCiphertextList] | None
    ) -> Iterator[evaluate.Progress]:
        return evaluate.run(model.program, keys, [[image] for image in images], threads=self._threads, start=start)

    def _images_together(self, model: Model) -> int:
        return evaluate.images_together(model.program)


def _reached(logits: Sequence[bytes], progress: evaluate.Progress, together: int) -> Checkpoint:
    return Checkpoint(answers=logits, state=progress.snapshot() if progress.snapshot else None, together=together)


def read_bundle(task: Task) -> Bytes:
    """Maps the task's bundle of keys.

    Raises:
        UnknownKeyError: it was removed.
    """
    try:
        with task.key_file.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise UnknownKeyError(
            f"the evaluation keys {task.key_id} were removed after the job was accepted: upload them again"
        ) from None


def load_bundle(data: Bytes, task: Task, params: ParameterSet) -> EvaluationKeys:
    """Reads a bundle and checks that it is the one that the job names.

    Raises:
        UnknownKeyError: the store holds something else, or damaged bytes: never evaluate under other keys than the job's.
    """
    try:
        keys = EvaluationKeys.from_bytes(data, params)
        found = container.read_header(data).key_id
    except (WireError, ParameterError, KeyMismatchError) as error:
        raise UnknownKeyError(
            f"the stored evaluation keys {task.key_id} are damaged ({error.code}): upload them again"
        ) from None
    if found != task.key_id:
        raise UnknownKeyError(
            f"the store holds the evaluation keys {found} in place of {task.key_id}: upload them again"
        )
    return keys


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the peak instead
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
