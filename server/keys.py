"""Evaluation keys on disk: content-addressed, immutable, bounded by bytes, there again after a restart.

A bundle lies in one file named after its key_id, the SHA-256 of its payload. It is written to a temporary file while it arrives,
checked as a container, and renamed only then: what can be seen under its final name is whole and is what its name says.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from he_layers.crypto import container
from he_layers.crypto.container import HEADER_BYTES, Kind
from he_layers.crypto.errors import UnknownKeyError, UnknownParamsError, WrongKeyError

_SUFFIX = ".keys"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyInfo:
    """What the store knows of a bundle."""

    key_id: str
    params_id: str
    bytes: int


class KeyStore:
    """The bundles of evaluation keys in one folder."""

    def __init__(self, folder: Path, key_bytes: Mapping[str, int], capacity_bytes: int) -> None:
        """Opens the folder.

        Args:
            folder: made if it does not exist.
            key_bytes: the exact size of a bundle under each parameter set (params_id) that is served.
            capacity_bytes: the least recently used bundles go when the folder holds more.
        """
        self._folder = folder
        self._key_bytes = key_bytes
        self._capacity_bytes = capacity_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in folder.glob("*.part"):
            leftover.unlink()

    @property
    def upload_limit(self) -> int:
        """The most bytes that any bundle can have here."""
        return max(self._key_bytes.values(), default=HEADER_BYTES)

    async def add(self, key_id: str, chunks: AsyncIterator[bytes]) -> KeyInfo:
        """Stores the bundle that arrives in `chunks` under `key_id`; storing it again changes nothing.

        Raises:
            WireError, ParameterError, KeyMismatchError: the first check of the container that fails; nothing is kept.
        """
        descriptor, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            with os.fdopen(descriptor, "w+b") as file:
                async for chunk in chunks:
                    file.write(chunk)
                file.flush()
                info = await asyncio.to_thread(self._check, key_id, file.fileno())
            os.replace(name, self._path(key_id))
        except BaseException:
            os.unlink(name)
            raise
        self._evict(keep=key_id)
        return info

    def find(self, key_id: str) -> Path:
        """Returns the file of a bundle and marks it as used.

        Raises:
            UnknownKeyError: there is no such bundle.
        """
        path = self._path(key_id)
        try:
            os.utime(path)
        except FileNotFoundError:
            raise UnknownKeyError(f"no evaluation keys {key_id} are stored here: upload them first") from None
        return path

    def describe(self, key_id: str) -> KeyInfo:
        """Returns what is known of a bundle.

        Raises:
            UnknownKeyError: there is no such bundle.
        """
        path = self.find(key_id)
        with path.open("rb") as file:
            header = container.read_header(file.read(HEADER_BYTES))
        return KeyInfo(key_id=key_id, params_id=header.params_id, bytes=path.stat().st_size)

    def delete(self, key_id: str) -> None:
        """Removes a bundle.

        Raises:
            UnknownKeyError: there is no such bundle.
        """
        self.find(key_id).unlink(missing_ok=True)

    def _path(self, key_id: str) -> Path:
        # The name comes from a request: anything but a digest could leave the folder.
        assert len(key_id) == 64 and set(key_id) <= set("0123456789abcdef"), "routes admit digests alone"
        return self._folder / f"{key_id}{_SUFFIX}"

    def _check(self, key_id: str, descriptor: int) -> KeyInfo:
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
        header = container.read_header(os.pread(descriptor, HEADER_BYTES, 0))
        key_bytes = self._key_bytes.get(header.params_id)
        if key_bytes is None:
            raise UnknownParamsError(f"no model here uses parameters {header.params_id}: see the model's profile")
        container.unpack(
            memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)),
            kind=Kind.EVALUATION_KEYS,
            params_id=header.params_id,
            key_id=None,
            payload_bytes=key_bytes - HEADER_BYTES,
        )
        if header.key_id != key_id:
            raise WrongKeyError(f"the bundle is {header.key_id}, it was sent to the address {key_id}")
        return KeyInfo(key_id=key_id, params_id=header.params_id, bytes=size)

    def _evict(self, keep: str) -> None:
        files = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in files)
        for path in files:
            if total <= self._capacity_bytes:
                break
            if path.stem != keep:
                total -= path.stat().st_size
                path.unlink()
