"""Keys on disk: private, whole, and made once."""

import stat
from pathlib import Path

import pytest

from client import Keystore
from he_layers.crypto import errors, params

TOY = params.get("TOY_N128")


def test_keys_are_made_once_and_read_again(tmp_path: Path) -> None:
    first, second = Keystore(tmp_path).open(TOY), Keystore(tmp_path).open(TOY)
    assert first.key_id == second.key_id
    assert first.client_keys.to_bytes() == second.client_keys.to_bytes()


def test_only_the_user_can_read_them(tmp_path: Path) -> None:
    pair = Keystore(tmp_path / "keys").open(TOY)
    for path in (tmp_path / "keys").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(pair.evaluation_keys.with_name("client.keys").stat().st_mode) == 0o600


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    pair = Keystore(tmp_path).open(TOY)
    pair.evaluation_keys.with_name("client.keys").chmod(0o644)
    with pytest.raises(errors.ExposedKeyError, match="chmod 600"):
        Keystore(tmp_path).open(TOY)


def test_a_damaged_key_file_is_refused(tmp_path: Path) -> None:
    secret = Keystore(tmp_path).open(TOY).evaluation_keys.with_name("client.keys")
    data = bytearray(secret.read_bytes())
    data[-1] ^= 1
    secret.write_bytes(bytes(data))
    with pytest.raises(errors.DigestMismatchError):
        Keystore(tmp_path).open(TOY)


def test_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSHIFT_HOME", str(tmp_path))
    assert Keystore().folder == tmp_path / "client"


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    assert "<secret>" in repr(Keystore(tmp_path).open(TOY))
