"""Checkpoints: what a worker has computed of a long task, in a file, so that another worker can go on from there.

A checkpoint holds ciphertexts, the feature maps between two layers and the answers of images that are done: nothing that the stored images
and evaluation keys do not give as well. A file that is damaged, or of another task, is none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift import __version__
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.evaluate import State
from ciphershift.server.engine.base import Task

_log = logging.getLogger("ciphershift.engine")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What there is of a task.

    Attributes:
        answers: of its first images, in containers.
        state: of the next ones, which are evaluated together; None before their first layer.
    """

    answers: Sequence[bytes] = ()
    state: State[LweCiphertextList] | None = None

    def write(self, task: Task, params_id: str) -> None:
        """Replaces the task's checkpoint. A disk that is full or cannot be written to is logged, and costs no more than the checkpoint."""
        about: dict[str, Any] = {"task": _digest(task, params_id), "answers": len(self.answers)}
        arrays: dict[str, Any] = {
            f"answer-{i}": np.frombuffer(answer, dtype=np.uint8) for i, answer in enumerate(self.answers)
        }
        if self.state is not None:
            about |= {"stages": self.state.stages, "lookups": self.state.lookups, "values": {}}
            for name, rows in self.state.values.items():
                about["values"][name] = {"input_words": rows.input_words, "bodies": rows.bodies}
                arrays[f"rows-{name}"] = rows.data
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        unfinished = task.checkpoint.with_name(f"{task.checkpoint.name}.{os.getpid()}")
        try:
            with open(unfinished, "wb", opener=_private) as file:
                np.savez(file, **arrays)
            os.replace(unfinished, task.checkpoint)
        except OSError as error:
            _log.warning("checkpoint_failed", extra={"job": task.job_id, "detail": error.strerror})
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    @classmethod
    def read(cls, task: Task, params_id: str) -> Checkpoint:
        """The task's checkpoint; an empty one if there is none, or one that is damaged or of other images."""
        try:
            with task.checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                if about["task"] != _digest(task, params_id):
                    return cls()
                answers = [arrays[f"answer-{i}"].tobytes() for i in range(about["answers"])]
                return cls(answers=answers, state=_state(about, arrays) if "stages" in about else None)
        except FileNotFoundError:
            return cls()
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            _log.warning("checkpoint_damaged", extra={"job": task.job_id, "detail": str(error)})
            return cls()


def _state(about: dict[str, Any], arrays: Any) -> State[LweCiphertextList]:
    values = {name: LweCiphertextList(_rows(arrays, name), **shape) for name, shape in about["values"].items()}
    return State(stages=about["stages"], lookups=about["lookups"], values=values)


def _rows(arrays: Any, name: str) -> NDArray[np.uint32]:
    rows: NDArray[np.uint32] = arrays[f"rows-{name}"]
    return rows


def _digest(task: Task, params_id: str) -> str:
    """Of all that a task's values follow from, this version of the software included."""
    digest = hashlib.sha256(json.dumps([__version__, params_id, task.model_digest, task.key_id]).encode())
    for image in task.images:
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
