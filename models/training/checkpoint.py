"""A checkpoint: where an interrupted training goes on, and of which training it is."""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ciphershift.errors import StaleCheckpointError
from ciphershift.models.compiler.network import Network
from ciphershift.models.training.data import Split
from ciphershift.models.training.phase import Phase

SAMPLED = 16
"""Values of each parameter and buffer that tell one network from another."""
CLOSE = 1e-4
"""Difference of such a value from one processor to another, over the mean length of those compared; a few were rounded elsewhere."""

_begun: WeakKeyDictionary[nn.Module, dict[Path, tuple[str, list[Tensor]]]] = WeakKeyDictionary()
"""What networks were before they were trained in this process, so that one that was interrupted halfway is still the one that began."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A file, and what a training must have in common with the one that wrote it.

    Attributes:
        path: of the file.
        training: by the names that an error gives them; the structure is a digest of what the network prints.
        weights: some values of the network before the training, and ``teacher`` of its teacher.
        device: kind of device that the training runs on; states of an optimizer and of random numbers are of one kind.
    """

    path: Path
    training: dict[str, object]
    weights: list[Tensor]
    teacher: list[Tensor]
    device: str

    @classmethod
    def of(
        cls, path: Path, network: nn.Module, phase: Phase, seed: int, train: Split, teacher: nn.Module | None
    ) -> "Checkpoint":
        """Of a training that is about to begin, or to go on; arguments as of ``models.training.loop.fit``."""
        images, labels = (
            hashlib.sha256(np.ascontiguousarray(part).data).hexdigest() for part in (train.images, train.labels)
        )
        begun = _begun.get(network, {}).get(path.absolute()) if path.exists() else None
        structure, weights = begun or (_structure(network), _sample(network))
        training: dict[str, object] = {"phase": asdict(phase), "seed": seed, "images": images, "labels": labels}
        training["structure"] = structure
        if isinstance(network, Network):
            training |= {"levels": network.levels, "exponents": network.exponents, "parameter set": network.params}
        return cls(
            path=path,
            training=training,
            weights=weights,
            teacher=[] if teacher is None else _sample(teacher),
            device=next(network.parameters()).device.type,
        )

    def begin(self, network: nn.Module) -> None:
        """The training begins or goes on: until it ends, the network is the one that it was before."""
        _begun.setdefault(network, {})[self.path.absolute()] = str(self.training["structure"]), self.weights

    def end(self, network: nn.Module) -> None:
        """The training is over: what is done with this network from now on is another one."""
        _begun.pop(network, None)

    def save(self, state: dict[str, object]) -> None:
        """Writes the state whole, or not at all."""
        own = {"training": self.training, "weights": self.weights, "teacher": self.teacher, "device": self.device}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(state | {"of": own}, partial)
        partial.replace(self.path)

    def load(self, device: torch.device) -> dict[str, Any]:
        """The state, on this device.

        Raises:
            StaleCheckpointError: the file is no checkpoint, or one of another training, or of an unfinished one on another kind of device.
            OSError: it cannot be read.
        """
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True, map_location=device)
            training, weights, teacher, kind = (
                state["of"][key] for key in ("training", "weights", "teacher", "device")
            )
        except (OSError, MemoryError, torch.OutOfMemoryError):
            raise  # the file may be good
        except Exception as error:
            raise StaleCheckpointError(f"{self.path} is no checkpoint of this version: delete it") from error
        differing = [name for name in self.training | training if self.training.get(name) != training.get(name)]
        differing += [] if _close(self.weights, weights) else ["weights before training"]
        differing += [] if _close(self.teacher, teacher) else ["teacher"]
        if differing:
            raise StaleCheckpointError(
                f"{self.path} is of another training, with other {', '.join(differing)}: delete it, or name another folder"
            )
        if kind != self.device and state["epoch"] != training["phase"]["epochs"]:
            raise StaleCheckpointError(
                f"{self.path} was begun on {kind}: end it there, or delete it and begin again on {self.device}"
            )
        return state


def _structure(network: nn.Module) -> str:
    return hashlib.sha256(re.sub("0x[0-9a-f]+", "", repr(network)).encode()).hexdigest()


def _sample(network: nn.Module) -> list[Tensor]:
    """The first values of each buffer and of each parameter that is trained; others may differ in sign from one processor to another."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [value.detach().flatten()[:SAMPLED].float().cpu().clone() for value in (*trained, *network.buffers())]


def _close(these: list[Tensor], those: list[Tensor]) -> bool:
    """Whether most values of each are the same; the file's may lie on a GPU."""
    if [one.shape for one in these] != [other.shape for other in those]:
        return False
    pairs = [(one, other.cpu()) for one, other in zip(these, those, strict=True) if len(one)]
    return all(
        one.isclose(other, rtol=0, atol=CLOSE * float(one.nan_to_num(0, 0, 0).abs().mean()), equal_nan=True)
        .float()
        .mean()
        >= 0.5
        for one, other in pairs
    )
