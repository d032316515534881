"""Blobs (ciphertexts, results, bundles of keys) in a folder or in any store that fsspec knows.

Names are relative paths. A blob appears whole or not at all, and is on disk when `write` returns. Calls block.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ciphershift.errors import ConfigurationError
from ciphershift.server.settings import Settings


class Spool:
    """A local file that is being filled; it becomes a blob with `keep`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Takes note of an open file and where it lies."""
        self.file = file
        self.path = path


class Blobs:
    """One store of blobs."""

    def __init__(self, settings: Settings) -> None:
        """Opens the store; a folder is made if it is missing.

        Args:
            settings: of which `storage` says where, and `cache` where local copies lie if that is no folder.

        Raises:
            ConfigurationError: the store is of no known kind, or what reaches it is not installed.
        """
        try:
            self._store, root = fsspec.core.url_to_fs(str(settings.storage_folder or settings.storage))
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"the store cannot be used ({error}): give CIPHERSHIFT_STORAGE a folder or a URL like s3://bucket/path, "
                "and install what reaches it (pip install 'ciphershift[s3]')"
            ) from None
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self._store, LocalFileSystem)
        self._folder = Path(self._root) if self._is_local else settings.cache
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """A local file for bytes that arrive bit by bit; it is gone in the end unless `keep` gave it a name."""
        folder = self._folder / "spool"
        folder.mkdir(exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield Spool(file, Path(name))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)

    def keep(self, spool: Spool, name: str) -> None:
        """Stores what was spooled as a blob, in place of one of the same name."""
        spool.file.flush()
        if self._is_local:
            os.fsync(spool.file.fileno())
            self._place(spool.path, self._folder / name)
        else:
            self._store.put_file(str(spool.path), self._path(name))

    def write(self, name: str, data: bytes) -> None:
        """Stores a blob, in place of one of the same name."""
        if self._is_local:
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

    def local(self, name: str) -> Path:
        """Returns a file with the blob's bytes, to be mapped: the blob itself, or a copy that is made once.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        path = self._folder / name
        if not path.exists():
            if self._is_local:
                raise FileNotFoundError(name)
            with self.spool() as spool:
                self._store.get_file(self._path(name), str(spool.path))
                self._place(spool.path, path)
        return path

    def delete(self, name: str) -> None:
        """Removes a blob and its local copy, if they are there."""
        (self._folder / name).unlink(missing_ok=True)
        if not self._is_local:
            with suppress(FileNotFoundError):
                self._store.rm_file(self._path(name))

    def check(self) -> None:
        """Returns if the store can be written to. Raises OSError."""
        self.write("probe", b"")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @staticmethod
    def _place(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(source, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, survives a power cut
        finally:
            os.close(folder)
