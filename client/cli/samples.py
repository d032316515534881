"""What `predict` and `jobs submit` read of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ciphershift.client import image_files, tables
from ciphershift.client._wire import ModelProfile


def read(files: list[Path], profile: ModelProfile) -> tuple[list[str], NDArray[Any] | list[NDArray[Any]]]:
    """What is to be encrypted, and how each sample is called: an image or a sequence by its file, a row by its file and line."""
    features = profile.encoding.names if profile.encoding else ()
    if profile.input_sequences:  # the client adds the last feature, the presence
        sequences = [tables.read_sequence(file, features[:-1], profile.input_shape[0] - 1) for file in files]
        return [str(file) for file in files], sequences
    if not any(file.suffix.lower() == ".csv" for file in files):
        return [str(file) for file in files], image_files.read(files, profile.sample_shape)
    tabled = [(file, *tables.read(file, features, profile.sample_shape)) for file in files]
    names = [f"{file}, line {line}" for file, _, lines in tabled for line in lines]
    return names, np.concatenate([values for _, values, _ in tabled])
