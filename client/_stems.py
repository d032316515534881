"""The public parts of models, kept on disk by their digest, so that each is fetched once."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ciphershift.client._wire import ModelProfile, StemProfile
from ciphershift.errors import DigestMismatchError
from ciphershift.he_layers.stem import Stem

KEPT_SECONDS = 30 * 86400.0
"""After its last use."""


class Stems:
    """Files in one folder, named by their SHA-256, which is checked each time that one is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, profile: ModelProfile, stem: StemProfile) -> Stem | None:
        """Returns a stem that was kept; None if there is none, or its file is damaged.

        Raises:
            BadStemError, ConfigurationError: see `opened`.
        """
        try:
            ready = opened(self._path(stem).read_bytes(), profile, stem)
            with suppress(OSError):  # another user's folder
                os.utime(self._path(stem))
            return ready
        except (FileNotFoundError, DigestMismatchError):
            return None

    def keep(self, stem: StemProfile, content: bytes) -> None:
        """Writes a file that was checked, and deletes those that were not used for KEPT_SECONDS."""
        # The keystore first: `parents` would leave it open to others.
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._folder.iterdir():
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink(missing_ok=True)
        temporary = self._path(stem).with_suffix(f".{os.getpid()}.part")
        temporary.write_bytes(content)
        temporary.replace(self._path(stem))

    def _path(self, stem: StemProfile) -> Path:
        return self._folder / f"{stem.sha256}.onnx"


def opened(content: bytes, profile: ModelProfile, stem: StemProfile) -> Stem:
    """Returns a stem that is ready to run.

    Raises:
        DigestMismatchError: the bytes are not those that the profile names.
        BadStemError: it is not what a client runs, or not of the profile's shapes.
        ConfigurationError: the extra `stem` is not installed.
    """
    ready = Stem.from_spec(stem.model_dump(), content, profile.input_shape)
    ready.check()
    return ready
