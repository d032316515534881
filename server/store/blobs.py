"""Blobs (ciphertexts, results, bundles of keys) in a folder or in any store that fsspec knows.

Names are relative paths. A blob becomes visible complete or not at all, and is on disk when `write` returns. Calls block.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ciphershift.errors import ConfigurationError
from ciphershift.server.settings import Settings

NEW_SECONDS = 10.0  # a spooled file may not be locked yet
PROBE = bytes(64 << 10)  # more than what a full disk may still take


class Spool:
    """A local temporary file that `keep` turns into a blob."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path


class Blobs:
    """One store of blobs."""

    def __init__(self, settings: Settings) -> None:
        """Opens the store; a folder is made if it is missing.

        Args:
            settings: `storage`, and `cache` for local copies if storage is not a folder.

        Raises:
            ConfigurationError: the kind of store is unknown, or its driver is not installed.
        """
        try:
            self._store, root = fsspec.core.url_to_fs(str(settings.storage_folder or settings.storage))
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"the object store cannot be used ({error}): set CIPHERSHIFT_STORAGE to a folder or a URL like s3://bucket/path, "
                "and install its driver (pip install 'ciphershift[s3]')"
            ) from None
        self._root = str(root).rstrip("/")
        self.is_local = isinstance(self._store, LocalFileSystem)
        self._folder = Path(self._root) if self.is_local else settings.cache
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self._folder} cannot be made ({error.strerror}): set CIPHERSHIFT_STORAGE (or CIPHERSHIFT_CACHE, for an "
                "object store) to a folder that can be written to"
            ) from None
        self.clean_spool()

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """A local file for bytes that arrive in chunks; deleted at the end unless `keep` has named it."""
        folder = self._folder / "spool"
        folder.mkdir(exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # says that its process lives
                yield Spool(file, Path(name))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)

    def keep(self, spool: Spool, name: str) -> None:
        """Stores a spooled file as a blob, replacing one of the same name."""
        spool.file.flush()
        if self.is_local:
            os.fsync(spool.file.fileno())
            self._place(spool.path, self._folder / name)
        else:
            self._store.put_file(str(spool.path), self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Stores a blob, replacing one of the same name."""
        if self.is_local:
            with self.spool() as spool:
                spool.file.write(data)
                self.keep(spool, name)
        else:
            self._store.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes:
        """Returns a blob.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        return cast(bytes, self._store.cat_file(self._path(name)))

    def exists(self, name: str) -> bool:
        """Whether there is a blob of this name."""
        return bool(self._store.exists(self._path(name)))

    def local(self, name: str) -> Path:
        """Returns a local file with the blob's bytes, to be mapped: the blob itself, or a cached copy.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        path = self._folder / name
        if not path.exists():
            if self.is_local:
                raise FileNotFoundError(name)
            with self.spool() as spool:
                self._store.get_file(self._path(name), str(spool.path))
                self._place(spool.path, path)
        return path

    def beside(self, name: str) -> Path:
        """Returns the path of a file that processes of this machine may keep under a name, never put into an object store."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def delete(self, name: str) -> None:
        """Deletes a blob and its local copy, if they exist."""
        (self._folder / name).unlink(missing_ok=True)
        if not self.is_local:
            with suppress(FileNotFoundError):
                self._store.rm_file(self._path(name))

    def check(self) -> None:
        """Returns if the store is writable. Raises OSError, also if its disk is full."""
        self.write("probe", PROBE)

    def names(self, folder: str, older_than: float) -> list[str]:
        """Returns the names of all blobs and local files below a folder that were last written before a time (seconds since the epoch)."""
        try:
            found = self._store.find(self._path(folder), detail=True)
        except FileNotFoundError:
            found = {}
        written = {str(path).removeprefix(f"{self._root}/"): _written(info) for path, info in found.items()}
        if not self.is_local:
            for path in filter(Path.is_file, (self._folder / folder).rglob("*")):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    written.setdefault(str(path.relative_to(self._folder)), path.stat().st_mtime)
        return sorted(name for name, time_written in written.items() if time_written < older_than)

    def clean_spool(self) -> None:
        """Deletes the spooled files of processes that were killed; those of live ones are locked."""
        for path in (self._folder / "spool").glob("*"):
            with suppress(OSError), path.open("rb") as file:
                if path.stat().st_mtime < time.time() - NEW_SECONDS:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @staticmethod
    def _place(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(source, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, survives a power failure
        finally:
            os.close(folder)


def _written(info: dict[str, Any]) -> float:
    """When a blob was last written, by what its file system tells of it; unknown counts as now."""
    value = info.get("mtime", info.get("LastModified", info.get("created")))
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, int | float) else time.time()
