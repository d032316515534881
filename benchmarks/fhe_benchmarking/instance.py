"""Paths of the workload's files: the harness runs every step in its own folder and passes only the size of the instance.

Written from the harness's public description: steps are processes that share the folders `datasets` and `io`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ciphershift.benchmarks.harness.served import served_params
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.security import require_secure
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings

SIZES = ("single", "small", "medium", "large")
"""Instances by the number that the harness calls them; how many images each has, its input file tells."""
MODEL = "CIPHERSHIFT_MODEL"
DEFAULT_MODEL = "mnist-fast"


def program() -> Program:
    """Returns the network that both sides have agreed on: that of the environment variable CIPHERSHIFT_MODEL, or mnist-fast."""
    return Program.load(Settings().models / os.environ.get(MODEL, DEFAULT_MODEL))


def parameter_set() -> ParameterSet:
    """Returns the parameters that servers evaluate that network under.

    Raises:
        InsecureParamsError: they protect nothing, and CIPHERSHIFT_ALLOW_TOY_PARAMETERS is not set.
    """
    params = served_params(program())
    if not Settings().allow_toy_parameters:
        require_secure(params)
    return params


@dataclass(frozen=True, slots=True)
class Instance:
    """One size of the workload under a folder."""

    root: Path
    size: int

    @classmethod
    def of_command_line(cls, arguments: Sequence[str] | None = None) -> Self:
        """Reads what the harness passes to a step: the size; the folder is the current one.

        Raises:
            SystemExit: there is no such size.
        """
        given = list(sys.argv[1:] if arguments is None else arguments)
        if len(given) != 1 or not given[0].isdecimal() or int(given[0]) >= len(SIZES):
            sys.exit(f"usage: STEP SIZE, with {', '.join(f'{i} for {name}' for i, name in enumerate(SIZES))}")
        return cls(Path.cwd(), int(given[0]))

    @property
    def name(self) -> str:
        """The instance's folder in each of the harness's folders."""
        return SIZES[self.size]

    @property
    def io(self) -> Path:
        """What client and server exchange, emptied by the harness before a run."""
        return self.root / "io" / self.name

    @property
    def pixels(self) -> Path:
        """One image per line, 784 numbers in [0, 1]; ``labels`` has the digit of each."""
        return self.root / "datasets" / self.name / "intermediate" / "test_pixels.txt"

    @property
    def labels(self) -> Path:
        """One digit per line."""
        return self.pixels.with_name("test_labels.txt")

    @property
    def secret_key(self) -> Path:
        """Of the client alone."""
        return self.io / "secret_key" / "client.keys"

    @property
    def evaluation_keys(self) -> Path:
        """Of which the harness reports the size."""
        return self.io / "public_keys" / "evaluation.keys"

    @property
    def images(self) -> Path:
        """Images as integers, between the client's first and second step."""
        return self.io / "intermediate" / "images.npy"

    @property
    def uploads(self) -> Path:
        """Folder of encrypted images, one file each, in the order of their names."""
        return self.io / "ciphertexts_upload"

    @property
    def downloads(self) -> Path:
        """Folder of encrypted logits, under the names of their images."""
        return self.io / "ciphertexts_download"

    @property
    def logits(self) -> Path:
        """Decrypted logits, between the client's last two steps."""
        return self.io / "intermediate" / "logits.npy"

    @property
    def predictions(self) -> Path:
        """One digit per line: what the harness compares with the labels."""
        return self.io / "encrypted_model_predictions.txt"

    @property
    def server_report(self) -> Path:
        """Seconds by part of the server's step, as the harness shows them."""
        return self.io / "server_reported_steps.json"

    @property
    def measurements(self) -> Path:
        """What the harness, or our driver, measured."""
        return self.root / "measurements" / self.name / "results-1.json"


def served_model(root: Path) -> Path:
    """Returns the folder of the network as the server has prepared it, which is the same for all sizes."""
    return root / "io" / "server_data" / "model"


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
