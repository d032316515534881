"""Settings from the environment: printed without secrets, refused where they are not safe."""

from pathlib import Path
from typing import Any

import pytest

from ciphershift.errors import ConfigurationError
from ciphershift.server.settings import EngineUrl, Settings, available_cpus, load_settings, masked
from tests.support.command_line import Done, run


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "0.0.0.0", "open": True}, "CIPHERSHIFT_OPEN_TO_NETWORK"),
        ({"host": "::", "open": True}, "CIPHERSHIFT_OPEN_TO_NETWORK"),
        ({"host": "some.name", "open": True}, "CIPHERSHIFT_OPEN_TO_NETWORK"),
        ({"host": "0.0.0.0", "allow_toy_parameters": True}, "protect nothing"),
        ({"allowed_origins": "https://example.org/page"}, "https://example.org/page is no origin"),
        ({"tls_certificate": "c.pem"}, "tls_key"),
        ({"tls_certificate": "none.pem", "tls_key": "none.pem"}, "none.pem"),
        ({"storage": "s3://bucket/path"}, "CIPHERSHIFT_DATABASE"),
        ({"storage": "memory://x", "database": "postgresql://h/d", "engine": "queue://"}, "not visible"),
        ({"engine": "slurm://"}, "not one of local"),
        ({"engine": "local://?worker=2"}, "unknown options"),
        ({"engine": "local://?workers=0"}, "at least 1"),
        ({"engine": "local://?fused=1"}, "unknown options"),
        ({"engine": "torch://"}, "torch://cuda:0"),
        ({"parameter_sets": "FAST_N512_BLOCK3,own"}, r"names \['own'\]; known are"),
        ({"parameter_sets": "FAST"}, "FAST_N512_BLOCK4"),
        ({"models": "no-such-folder"}, "there is no folder no-such-folder: set the path"),
        ({"queue_depth": -1}, "queue_depth"),
        ({"port": 70000}, "port"),
    ],
)
def test_what_is_unsafe_or_impossible_is_refused_with_what_to_change(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load_settings(**given)


def test_a_tls_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.touch()
    key.touch()
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod o-rwx"):
        load_settings(tls_certificate=str(certificate), tls_key=str(key))
    key.chmod(0o640)  # a group for certificates is what Debian's packages use
    assert load_settings(tls_certificate=str(certificate), tls_key=str(key)).tls_key == key


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_open_server_may_listen_on_loopback(host: str) -> None:
    assert load_settings(host=host, open=True).open


def test_an_open_server_may_listen_elsewhere_if_told_twice() -> None:
    assert load_settings(host="0.0.0.0", open=True, open_to_network=True).open
    assert not load_settings(host="0.0.0.0").open


def test_an_engine_url_says_workers_and_threads() -> None:
    assert EngineUrl.parse("local://") == EngineUrl(scheme="local", address="", workers=1, threads=available_cpus())
    ray = EngineUrl.parse("ray://head:6379?workers=4")
    assert ray == EngineUrl(scheme="ray", address="head:6379", workers=4, threads=1)
    assert EngineUrl.parse("local://?workers=3&threads=2").workers == 3
    card = EngineUrl.parse("torch://cuda:0?fused=1&threads=8")
    assert card == EngineUrl(scheme="torch", address="cuda:0", workers=1, threads=8, fused=True)


def test_the_database_is_sqlite_in_the_storage_unless_named(tmp_path: Path) -> None:
    assert Settings(storage=str(tmp_path)).database_url == f"sqlite:///{tmp_path}/ciphershift.db"
    assert Settings(storage=f"file://{tmp_path}").database_url == f"sqlite:///{tmp_path}/ciphershift.db"
    assert Settings(database="postgresql://u@h/d").database_url == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/var/lib/x", "/var/lib/x"),
        ("postgresql://user:geheim@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql://user:ge/he:im@host/db", "postgresql://user:***@host/db"),
        ("postgresql+psycopg://user:ge@he/im@host/db", "postgresql+psycopg://user:***@host/db"),
        ("postgresql://host/db?password=geheim&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("local://?workers=2&threads=1", "local://?workers=2&threads=1"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def command(environment: dict[str, str], *arguments: str) -> Done:
    return run(*arguments, environment=environment)


def test_the_effective_settings_can_be_printed() -> None:
    environment = {"CIPHERSHIFT_PORT": "9000", "CIPHERSHIFT_DATABASE": "postgresql://user:geheim@host/db"}
    printed = command(environment, "settings").stdout
    assert printed == command(environment, "serve", "--print-settings").stdout
    assert {"CIPHERSHIFT_PORT=9000", "CIPHERSHIFT_DATABASE=postgresql+psycopg://user:***@host/db"} <= set(
        printed.splitlines()
    )
    assert "geheim" not in printed


def test_what_is_printed_gives_the_same_settings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(parameter_sets="FAST_N512_BLOCK3_SHARED2")
    printed = given.printable()
    assert "None" not in printed.values()
    for name, value in printed.items():
        monkeypatch.setenv(f"CIPHERSHIFT_{name.upper()}", value)
    assert Settings().printable() == printed
    assert Settings().images_per_turn is None  # a default is no choice of the operator


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"CIPHERSHIFT_OPEN": "true", "CIPHERSHIFT_HOST": "0.0.0.0"}, "CIPHERSHIFT_OPEN_TO_NETWORK"),
        ({"CIPHERSHIFT_DATABASE": "postgresql://user:geheim@127.0.0.1:9/db"}, "start the database"),
        ({"CIPHERSHIFT_DATABASE": "mysql+pymysql://127.0.0.1/db"}, "install its driver"),
        ({"CIPHERSHIFT_DATABASE": "not an address"}, "like postgresql://"),
        ({"CIPHERSHIFT_STORAGE": "dropbox://folder", "CIPHERSHIFT_DATABASE": "sqlite://"}, "install its driver"),
    ],
)
def test_a_start_that_cannot_be_ends_with_the_reason(given: dict[str, str], says: str) -> None:
    done = command(given, "serve")
    assert done.returncode == 1
    assert says in done.stderr
    assert "geheim" not in done.stderr
