"""Keys on disk: private, whole, and made once."""

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ciphershift import errors
from ciphershift.client import Client, Keystore
from ciphershift.client._passphrase import is_locked
from ciphershift.client.keystore import PASSPHRASE
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.secret_keys import PAIR_BYTES, ClientKeys
from ciphershift.protocol import container
from ciphershift.protocol.container import Kind

TOY = params.get("TOY_N128")


@pytest.fixture(autouse=True)
def _cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real cost of a guess is part of the format, which tests/golden holds."""
    monkeypatch.setattr("ciphershift.client._passphrase.SCRYPT_N", 2**10)


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


SECRET = Path(TOY.id, "client.keys")


def test_under_a_passphrase_the_file_holds_no_secret(tmp_path: Path) -> None:
    plain = Keystore(tmp_path, passphrase="correct horse").open(TOY).client_keys.to_bytes()
    data = (tmp_path / SECRET).read_bytes()
    assert is_locked(data)
    assert plain[container.HEADER_BYTES :][:64] not in data
    assert stat.S_IMODE((tmp_path / SECRET).stat().st_mode) == 0o600


def test_only_the_same_passphrase_opens_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Keystore(tmp_path, passphrase="correct horse").open(TOY)
    with pytest.raises(errors.WrongPassphraseError):
        Keystore(tmp_path, passphrase="Correct horse").open(TOY)
    with pytest.raises(errors.LockedKeyError, match=PASSPHRASE):
        Keystore(tmp_path).open(TOY)
    asked = Keystore(tmp_path, ask=lambda: "correct horse").open(TOY)
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    told = Keystore(tmp_path).open(TOY)
    assert made.client_keys.to_bytes() == asked.client_keys.to_bytes() == told.client_keys.to_bytes()


def test_keys_without_a_passphrase_are_sealed_when_one_is_given(tmp_path: Path) -> None:
    before = Keystore(tmp_path).open(TOY)
    assert not is_locked((tmp_path / SECRET).read_bytes())
    after = Keystore(tmp_path, passphrase="correct horse").open(TOY)
    assert is_locked((tmp_path / SECRET).read_bytes())
    assert before.client_keys.to_bytes() == after.client_keys.to_bytes()
    assert sorted(path.name for path in (tmp_path / TOY.id).iterdir()) == ["client.keys", "evaluation.keys"]


@pytest.mark.parametrize(
    ("forge", "error"),
    [
        pytest.param(
            lambda p: p[:30] + bytes([p[30] ^ 1]) + p[31:], errors.WrongPassphraseError, id="sealed keys changed"
        ),
        pytest.param(lambda p: bytes([p[0] ^ 1]) + p[1:], errors.WrongPassphraseError, id="salt changed"),
        pytest.param(lambda p: p[:-1], errors.WrongLengthError, id="cut short"),
    ],
)
def test_a_forged_key_file_is_refused(
    tmp_path: Path, forge: Callable[[bytes], bytes], error: type[errors.CiphershiftError]
) -> None:
    Keystore(tmp_path, passphrase="correct horse").open(TOY)
    payload = forge((tmp_path / SECRET).read_bytes()[container.HEADER_BYTES :])
    (tmp_path / SECRET).write_bytes(container.pack(Kind.LOCKED_CLIENT_KEYS, TOY.id, None, payload))
    with pytest.raises(error):
        Keystore(tmp_path, passphrase="correct horse").open(TOY)


def test_two_files_under_one_passphrase_share_nothing(tmp_path: Path) -> None:
    keystore = Keystore(tmp_path)
    keystore.open(TOY)
    sealed = []
    for _ in range(2):
        (tmp_path / "copy" / TOY.id).mkdir(parents=True, exist_ok=True)
        for path in (tmp_path / TOY.id).iterdir():
            copy = tmp_path / "copy" / TOY.id / path.name
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o600)
        Keystore(tmp_path / "copy", passphrase="p").open(TOY)
        sealed.append((tmp_path / "copy" / SECRET).read_bytes()[container.HEADER_BYTES :])
    assert sealed[0][:16] != sealed[1][:16]
    assert sealed[0][28:60] != sealed[1][28:60]


def test_a_closed_client_has_erased_its_keys(tmp_path: Path) -> None:
    client = Client("http://127.0.0.1:1", keystore=Keystore(tmp_path))
    pair = Keystore(tmp_path).open(TOY)
    client._session._keys[TOY.id] = pair
    client.close()
    assert not any(
        getattr(pair.client_keys, name).any() for name in ("input_secret", "answer_secret", "small_lwe_key", "glwe_key")
    )
    with pytest.raises(errors.WrongKeyError, match="erased"):
        ckks.encrypt(pair.client_keys, pair.key_id, np.zeros(1))
    with pytest.raises(errors.WrongKeyError, match="erased"):
        pair.client_keys.evaluation_keys()


@pytest.mark.parametrize("write", [ClientKeys.to_bytes, ClientKeys.evaluation_keys])
def test_a_write_that_fails_leaves_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[ClientKeys], object]
) -> None:
    def full(_: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr(ClientKeys, write.__name__, full)
    with pytest.raises(OSError, match="no space"):
        Keystore(tmp_path).open(TOY)
    assert list(tmp_path.iterdir()) == []


def test_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIPHERSHIFT_HOME", str(tmp_path))
    assert Keystore().folder == tmp_path / "client"


def test_a_folder_that_cannot_be_made_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.ConfigurationError, match=r"file/keys .*CIPHERSHIFT_HOME"):
        Keystore(tmp_path / "file" / "keys").open(TOY)


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    assert "<secret>" in repr(Keystore(tmp_path).open(TOY))


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_keys_of_two_pairs_mixed_are_refused(tmp_path: Path, passphrase: str | None) -> None:
    """A backup that was put back by halves: what is encrypted under one pair cannot be computed with the other."""
    for name in ("a", "b"):
        Keystore(tmp_path / name, passphrase=passphrase).open(TOY)
    (tmp_path / "a" / SECRET).write_bytes((tmp_path / "b" / SECRET).read_bytes())
    with pytest.raises(errors.WrongKeyError, match="two different pairs"):
        Keystore(tmp_path / "a", passphrase=passphrase).open(TOY)


@pytest.mark.parametrize("name", ["FAST_N512", "TOY_N128", "TOY_N128_BLOCK3"])
def test_a_pair_is_told_from_every_other(name: str) -> None:
    chosen = params.get(name)
    keys, others = ClientKeys.generate(chosen), ClientKeys.generate(chosen)
    bundle = keys.evaluation_keys().to_bytes()
    keys.require_pair(bundle)
    keys.require_pair(bundle[:PAIR_BYTES])
    for wrong in (others.evaluation_keys().to_bytes(), bundle[:200], bytes(len(bundle))):
        with pytest.raises(errors.WrongKeyError):
            keys.require_pair(wrong)


@pytest.mark.parametrize("place", [".", TOY.id])
def test_a_folder_where_others_can_replace_keys_is_refused(tmp_path: Path, place: str) -> None:
    keystore = Keystore(tmp_path / "keys")
    keystore.open(TOY)
    (tmp_path / "keys" / place).chmod(0o777)
    with pytest.raises(errors.ExposedKeyError, match="chmod 700"):
        keystore.open(TOY)
    (tmp_path / "keys" / place).chmod(0o755)
    keystore.open(TOY)


def test_an_empty_passphrase_is_refused_and_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.ConfigurationError, match="empty"):
        Keystore(tmp_path, passphrase="")
    monkeypatch.setenv(PASSPHRASE, "")
    with pytest.raises(errors.ConfigurationError, match=PASSPHRASE):
        Keystore(tmp_path)


def test_a_passphrase_is_the_same_in_every_unicode_form(tmp_path: Path) -> None:
    """macOS and Linux keyboards may give an umlaut as one letter or as two."""
    Keystore(tmp_path, passphrase="Schl\u00fcssel").open(TOY)
    Keystore(tmp_path, passphrase="Schlu\u0308ssel").open(TOY)


def test_a_client_takes_the_folder_as_a_path(tmp_path: Path) -> None:
    for folder in (tmp_path, str(tmp_path)):
        with Client("http://127.0.0.1:1", keystore=folder) as client:
            assert client._session._keystore.folder == tmp_path
