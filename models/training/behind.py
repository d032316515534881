"""Data as the secret part of a network takes them: what its public part makes of the images, as levels."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ciphershift.errors import NotEquivalentError
from ciphershift.he_layers.stem import Stem
from ciphershift.models.compiler.network import Network
from ciphershift.models.compiler.scales import PIXEL_LEVELS
from ciphershift.models.training.data import Split
from ciphershift.models.training.phase import Phase
from ciphershift.protocol import scaling

PART = 500
"""Images at a time."""
COMPARED = 8
"""Images on which the public part in torch is held against the ONNX file."""


def secret_data(
    network: Network, phase: Phase, train: Split, validation: Split | None, folder: Path | None = None
) -> tuple[Split, Split | None, nn.Module | None]:
    """What a phase trains a network on: training and validation data, and what the training images still go through.

    Without a public part everything stays as it is. A phase that needs the images (``Phase.sees_images``) keeps the training images, and
    takes each batch through the public part; for any other one this is done once, beforehand.

    Args:
        network: as models.compiler.convert returned it.
        phase: for which the data are.
        train: raw images; ``validation`` as well.
        folder: see ``behind``.

    Raises:
        NotEquivalentError: the module has changed since its public part was written.
        OutOfLevelsError, BadStemError, ConfigurationError: see Stem.unit.
    """
    if network.stem is None:
        return train, validation, None
    validation = validation and behind(network.stem, validation, folder)
    if not phase.sees_images:
        return behind(network.stem, train, folder), validation, None
    assert network.public_part is not None, "convert gives both"
    batch = phase.of(len(train.labels)).batch
    public = network.public_part(batch)
    _require_same(public, network.stem, train.part(0, batch))
    return train, validation, public


def _require_same(public: nn.Module, stem: Stem, split: Split) -> None:
    images = split.images / scaling.PIXEL_MAX
    found = public(torch.tensor(images, dtype=torch.float32)).numpy()
    steps = np.abs(found[:COMPARED] - stem.scaled(stem.run(images[:COMPARED])).clip(0, 1)) * PIXEL_LEVELS
    if steps.max() > 1:
        raise NotEquivalentError(
            "the public part in torch gives other values than the ONNX file: the module was changed since; convert it again"
        )


def behind(stem: Stem, split: Split, folder: Path | None = None) -> Split:
    """The same labels, and the public part's output for each image, uint8 [count, ...] of its shape: 0 to 255 over the part's range.

    Args:
        stem: the public part.
        split: raw images.
        folder: where the result is kept for the next time, if it is given: a large part takes minutes.

    Raises:
        OutOfLevelsError, BadStemError, ConfigurationError: see Stem.unit.
    """
    if folder is None:
        return Split(images=_levels(stem, split), labels=split.labels)
    path = folder / f"behind-{_digest(stem, split)[:16]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, _levels(stem, split))
        partial.replace(path)
    return Split(images=np.load(path), labels=split.labels)


def _levels(stem: Stem, split: Split) -> NDArray[np.uint8]:
    parts = [
        scaling.to_integers(stem.unit(part.images / scaling.PIXEL_MAX), PIXEL_LEVELS).astype(np.uint8)
        for part in split.parts(PART)
    ]
    return np.concatenate(parts)


def _digest(stem: Stem, split: Split) -> str:
    digest = hashlib.sha256(json.dumps(stem.to_spec()).encode())
    digest.update(np.ascontiguousarray(split.images).tobytes())
    return digest.hexdigest()
