"""The inside of a worker: container -> keys and ciphertexts -> layers -> container.

A worker sees paths, ids and bytes; no request, no secret. Expanded keys are kept while they fit, least recently used out.
"""

from __future__ import annotations

import mmap
import os
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from he_layers import evaluate
from he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer
from he_layers.crypto.errors import DeadlineError, NotReadyError, UnknownKeyError
from he_layers.crypto.evaluation_keys import EvaluationKeys, ServerKeys
from server.engine.engine import Answer, Step, Task, WorkerState
from server.repository import Model, Repository
from server.settings import Settings


class Stopped(Exception):  # noqa: N818 - no error: the task was to end
    """The task was canceled."""


class Worker:
    """The models and the expanded keys of one worker."""

    def __init__(self, settings: Settings, threads: int) -> None:
        """Loads every model.

        Args:
            settings: of which models, and the bytes of keys to keep.
            threads: of the kernel.
        """
        self._settings = settings
        self._threads = threads
        self._models = Repository(settings)
        self._keys: OrderedDict[tuple[str, str], ServerKeys] = OrderedDict()
        self._hits = self._misses = 0

    @property
    def state(self) -> WorkerState:
        """What the worker holds."""
        return WorkerState(
            rss_bytes=_resident_bytes(),
            key_cache_bytes=self._cached_bytes(),
            key_cache_hits=self._hits,
            key_cache_misses=self._misses,
        )

    def run(self, task: Task, report: Callable[[Step], None], stopped: Callable[[], bool]) -> Answer:
        """Computes a task.

        Args:
            task: what to compute.
            report: called after each layer.
            stopped: asked after each layer whether to go on.

        Raises:
            Stopped: it answered yes.
            DeadlineError: the deadline passed.
            HEServiceError: what is wrong with keys or images.
        """
        model = self._model(task)
        started = time.perf_counter()
        images = [CkksCiphertext.from_bytes(image, model.params, task.key_id, model.pixels) for image in task.images]
        keys = self._server_keys(task, model)
        key_seconds = time.perf_counter() - started
        logits = []
        for done, image in enumerate(images):

            def after(progress: evaluate.Progress, seconds: float, done: int = done) -> None:
                report(
                    Step(
                        layer=progress.layer,
                        seconds=seconds,
                        bootstraps_done=done * progress.lookups_total + progress.lookups_done,
                        images_done=done + (progress.answer is not None),
                    )
                )
                if stopped():
                    raise Stopped
                if time.time() > task.deadline:
                    raise DeadlineError(f"the deadline of the job passed in {progress.layer}")

            logits.append(self._evaluate(model, keys, image, after).to_bytes())
        return Answer(logits=tuple(logits), seconds=time.perf_counter() - started, key_seconds=key_seconds)

    def _evaluate(
        self, model: Model, keys: ServerKeys, image: CkksCiphertext, after: Callable[[evaluate.Progress, float], None]
    ) -> PackedAnswer:
        answer, before = None, 0.0
        for progress in evaluate.run(model.program, keys, [image], threads=self._threads):
            after(progress, progress.seconds - before)
            answer, before = progress.answer, progress.seconds
        assert answer is not None, "the last item of an evaluation carries the answer"
        return answer

    def _model(self, task: Task) -> Model:
        """The model that the job was accepted for; read again if the folder holds another version by now."""
        name = task.model
        model = self._models[name] if name in self._models else self._models.load(name)
        if model.program.digest != task.model_digest:
            model = self._models.load(name)
        if model.program.digest == task.model_digest:
            return model
        raise NotReadyError(f"model {name} has changed since the job was accepted: send it again")

    def _server_keys(self, task: Task, model: Model) -> ServerKeys:
        name = (task.key_id, model.params.id)
        keys = self._keys.pop(name, None)
        if keys is None:
            self._misses += 1
            keys = _read_keys(task.key_file, model).expand(self._threads)
        else:
            self._hits += 1
        self._keys[name] = keys
        while len(self._keys) > 1 and self._cached_bytes() > self._settings.worker_key_bytes:
            self._keys.popitem(last=False)
        return keys

    def _cached_bytes(self) -> int:
        return sum(keys.nbytes for keys in self._keys.values())


def _read_keys(path: Path, model: Model) -> EvaluationKeys:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UnknownKeyError(f"the evaluation keys {path.stem} were removed meanwhile: upload them again") from None
    return EvaluationKeys.from_bytes(memoryview(mapped), model.params)


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux: the peak instead
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
