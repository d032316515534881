"""Checkpoints: what a worker has computed of a long task, in a file, so that another worker can go on from there.

A checkpoint holds ciphertexts, the feature maps between two slices and the answers of images that are done: nothing that the stored images
and evaluation keys do not give as well. A file that is damaged, or of another task, is none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
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
        together: how many images are evaluated together; a state is of no use to a worker that takes another number.
    """

    answers: Sequence[bytes] = ()
    state: State[LweCiphertextList] | None = None
    together: int = 1

    def write(self, task: Task, params_id: str) -> bool:
        """Replaces the task's checkpoint; returns whether it could. A full disk is logged, and costs no more than the checkpoint."""
        about: dict[str, Any] = {
            "task": _digest(task, params_id),
            "answers": len(self.answers),
            "together": self.together,
        }
        arrays: dict[str, Any] = {
            f"answer-{i}": np.frombuffer(answer, dtype=np.uint8) for i, answer in enumerate(self.answers)
        }
        if self.state is not None:
            about["state"] = _pack(self.state, arrays)
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
            return False
        return True

    @classmethod
    def read(cls, task: Task, params_id: str, together: int) -> Checkpoint:
        """The task's checkpoint; an empty one if there is none, or one that is damaged or of other images.

        Without its state if so many images are not what it was made with.
        """
        try:
            with task.checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                if about["task"] != _digest(task, params_id):
                    return cls()
                answers = [arrays[f"answer-{i}"].tobytes() for i in range(about["answers"])]
                usable = "state" in about and about["together"] == together
                return cls(answers=answers, state=_unpack(about["state"], arrays) if usable else None)
        except FileNotFoundError:
            return cls()
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            _log.warning("checkpoint_damaged", extra={"job": task.job_id, "detail": str(error)})
            return cls()


def _pack(state: State[LweCiphertextList], arrays: dict[str, Any]) -> dict[str, Any]:
    """What is no array; arrays are added to the others, by a number."""

    def rows(x: LweCiphertextList | None) -> dict[str, Any] | None:
        if x is None:
            return None
        name = f"rows-{len(arrays)}"
        arrays[name] = x.data
        return {"array": name, "input_words": x.input_words}

    return {
        "stages": state.stages,
        "lookups": state.lookups,
        "values": {name: rows(x) for name, x in state.values.items()},
        "source": rows(state.source),
        "rows": rows(state.rows),
        "channels": state.channels,
    }


def _unpack(about: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> State[LweCiphertextList]:
    def rows(x: dict[str, Any]) -> LweCiphertextList:
        return LweCiphertextList(arrays[x["array"]], input_words=x["input_words"])

    return State(
        stages=about["stages"],
        lookups=about["lookups"],
        values={name: rows(x) for name, x in about["values"].items()},
        source=about["source"] and rows(about["source"]),
        rows=about["rows"] and rows(about["rows"]),
        channels=about["channels"],
    )


def _digest(task: Task, params_id: str) -> str:
    """Of all that a task's values follow from, this version of the software included."""
    digest = hashlib.sha256(json.dumps([__version__, params_id, task.model_digest, task.key_id]).encode())
    for image in task.images:
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
