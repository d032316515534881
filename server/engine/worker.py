"""The inside of a worker process: container -> keys and ciphertexts -> layers -> container.

A worker sees paths, ids and bytes; no request, no secret. Expanded keys are kept while they fit, least recently used out.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from he_layers import evaluate
from he_layers.crypto.ciphertexts import CkksCiphertext, PackedAnswer
from he_layers.crypto.errors import DeadlineError, UnknownKeyError
from he_layers.crypto.evaluation_keys import EvaluationKeys, ServerKeys
from server.repository import Model, Repository
from server.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One request, as a worker gets it."""

    model: str
    key_id: str
    key_file: Path
    images: tuple[bytes, ...]
    deadline: float  # seconds since the epoch: the clock that processes share


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One container of encrypted logits per image, and what it took."""

    logits: tuple[bytes, ...]
    seconds: float
    key_seconds: float
    bootstraps: int


class Worker:
    """The models and the expanded keys of one worker process."""

    def __init__(self, settings: Settings) -> None:
        """Loads every model."""
        self._settings = settings
        self._models = Repository(settings.models, allow_toy_parameters=settings.allow_toy_parameters)
        self._keys: OrderedDict[tuple[str, str], ServerKeys] = OrderedDict()

    def infer(self, task: Task) -> Answer:
        """Evaluates one request."""
        model = self._models[task.model]
        started = time.perf_counter()
        images = [CkksCiphertext.from_bytes(image, model.params, task.key_id, model.pixels) for image in task.images]
        keys = self._server_keys(task, model)
        key_seconds = time.perf_counter() - started
        logits = tuple(self._evaluate(model, keys, image, task.deadline).to_bytes() for image in images)
        return Answer(
            logits=logits,
            seconds=time.perf_counter() - started,
            key_seconds=key_seconds,
            bootstraps=model.program.lookups * len(images),
        )

    def _evaluate(self, model: Model, keys: ServerKeys, image: CkksCiphertext, deadline: float) -> PackedAnswer:
        answer = None
        for progress in evaluate.run(model.program, keys, [image], threads=self._settings.threads):
            if time.time() > deadline:
                raise DeadlineError(f"the deadline of {self._settings.deadline_seconds:g} s passed in {progress.layer}")
            answer = progress.answer
        assert answer is not None, "the last item of an evaluation carries the answer"
        return answer

    def _server_keys(self, task: Task, model: Model) -> ServerKeys:
        name = (task.key_id, model.params.id)
        keys = self._keys.pop(name, None)
        if keys is None:
            keys = _read_keys(task.key_file, model).expand(self._settings.threads)
        self._keys[name] = keys
        while (
            len(self._keys) > 1 and sum(kept.nbytes for kept in self._keys.values()) > self._settings.worker_key_bytes
        ):
            self._keys.popitem(last=False)
        return keys


def _read_keys(path: Path, model: Model) -> EvaluationKeys:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UnknownKeyError(f"the evaluation keys {path.stem} were removed meanwhile: upload them again") from None
    return EvaluationKeys.from_bytes(memoryview(mapped), model.params)


_worker: Worker | None = None  # set once in a worker process, which has no other place between two calls


def initialise(settings: Settings) -> None:
    """Prepares this worker process: it outlives an interrupt from the terminal, but not its server."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(settings)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child of the server"
    parent.join()
    os._exit(1)


def ping() -> None:
    """Answers when the worker is prepared."""
    assert _worker is not None, "the pool initialises a worker before it sends work"


def infer(task: Task) -> Answer:
    """Evaluates one request in this worker process."""
    assert _worker is not None, "the pool initialises a worker before it sends work"
    return _worker.infer(task)
