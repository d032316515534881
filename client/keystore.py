"""The user's keys on disk: one pair per parameter set, readable by the user alone, written atomically.

A pair is the secret keys and the evaluation keys made from them, each in a container of its own. Both are written to a temporary
folder that is then renamed, so that two processes that start at once end up with the same pair. With a passphrase the secret keys
are encrypted (client/_passphrase.py); without one, only the file's mode protects them.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ciphershift.client._passphrase import is_locked, lock, unlock
from ciphershift.errors import ConfigurationError, ExposedKeyError, LockedKeyError, WrongKeyError
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.crypto.secret_keys import PAIR_BYTES, ClientKeys
from ciphershift.protocol.container import HEADER_BYTES, read_header

PASSPHRASE = "CIPHERSHIFT_PASSPHRASE"
_SECRET = "client.keys"
_PUBLIC = "evaluation.keys"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPair:
    """Secret keys, and the file of the evaluation keys that belong to them."""

    client_keys: ClientKeys
    key_id: str
    evaluation_keys: Path


class Keystore:
    """The key pairs in one folder."""

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        passphrase: str | None = None,
        ask: Callable[[], str] | None = None,
    ) -> None:
        """Opens a folder.

        Args:
            folder: the default is `client` under CIPHERSHIFT_HOME or the platform's folder for user data.
            passphrase: encrypts the secret keys on disk; the default is CIPHERSHIFT_PASSPHRASE, without it they are not encrypted.
                Its Unicode form does not matter (NFC is used).
            ask: called for the passphrase if the keys are encrypted and none is given.

        Raises:
            ConfigurationError: the passphrase is empty.
        """
        home = os.environ.get("CIPHERSHIFT_HOME")
        base = Path(home) if home else platformdirs.user_data_path("ciphershift")
        self.folder = base / "client" if folder is None else Path(folder).expanduser()
        given = os.environ.get(PASSPHRASE) if passphrase is None else passphrase
        if given == "":
            raise ConfigurationError(
                f"the passphrase is empty: set {PASSPHRASE} to one, or unset it to store keys unencrypted"
            )
        self._passphrase = given
        self._ask = ask

    def has(self, params: ParameterSet) -> bool:
        """Whether there is a pair for a parameter set."""
        return (self.folder / params.id).exists()

    def open(self, params: ParameterSet) -> KeyPair:
        """Returns the pair for a parameter set, made now if there is none.

        Keys that were made without a passphrase are encrypted now if one is given.

        Raises:
            ConfigurationError: a pair cannot be stored in the folder.
            ExposedKeyError: other users of the machine can read the secret keys, or replace them.
            WrongKeyError: the two files of the pair do not belong together.
            LockedKeyError: the secret keys are encrypted, and no passphrase is given.
            WrongPassphraseError: the passphrase is another one.
            WireError: a key file is damaged.
        """
        folder = self.folder / params.id
        if not self.has(params):
            self._make(params, folder)
        return self._load(params, folder)

    def _make(self, params: ParameterSet, folder: Path) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".making-"))
        except OSError as error:
            raise ConfigurationError(
                f"keys cannot be stored in {self.folder} ({error.strerror}): set CIPHERSHIFT_HOME to a folder that can be written to"
            ) from error
        try:
            keys = ClientKeys.generate(params)
            _write(temporary / _SECRET, self._at_rest(keys.to_bytes(), params))
            _write(temporary / _PUBLIC, keys.evaluation_keys().to_bytes())
            keys.erase()
            temporary.rename(folder)
        except OSError:
            # Another process was faster: use its pair.
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _load(self, params: ParameterSet, folder: Path) -> KeyPair:
        secret = folder / _SECRET
        mode = _mode(secret)
        if mode & 0o077:
            raise ExposedKeyError(f"{secret} has mode {mode:o}, others can read it: chmod 600, or delete {folder}")
        for place in (self.folder, folder):
            if _mode(place) & 0o022:
                raise ExposedKeyError(
                    f"{place} has mode {_mode(place):o}, others can replace the keys in it: chmod 700"
                )
        with (folder / _PUBLIC).open("rb") as file:
            start = file.read(PAIR_BYTES)
        header = read_header(start[:HEADER_BYTES])
        data = secret.read_bytes()
        if is_locked(data):
            data = unlock(data, params, self._known_passphrase(secret))
        elif self._passphrase:
            _replace(secret, self._at_rest(data, params))
        keys = ClientKeys.from_bytes(data, params)
        try:
            keys.require_pair(start)
        except WrongKeyError:
            raise WrongKeyError(
                f"{_SECRET} and {_PUBLIC} in {folder} belong to two different pairs: put back both files of one pair, or "
                "delete the folder to make new keys"
            ) from None
        return KeyPair(client_keys=keys, key_id=header.key_id, evaluation_keys=folder / _PUBLIC)

    def _at_rest(self, data: bytes, params: ParameterSet) -> bytes:
        return lock(data, params, self._passphrase) if self._passphrase else data

    def _known_passphrase(self, secret: Path) -> str:
        given = self._passphrase or (self._ask() if self._ask else None)
        if not given:
            raise LockedKeyError(f"{secret} is encrypted under a passphrase: set {PASSPHRASE}, or run it in a terminal")
        return given


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    os.replace(name, path)
