"""What an operator does by commands: each answer names the database it worked on, and is JSON for programs."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ciphershift.server.settings import Settings
from ciphershift.server.store.audit import operator
from tests.server.store.conftest import State
from tests.support.command_line import run

Ask = Callable[..., Any]


@pytest.fixture
def ask(zoo: Path, tmp_path: Path) -> Ask:
    """Runs a command with --json; returns what it prints."""

    def ask(*arguments: str) -> Any:
        environment = {"CIPHERSHIFT_STORAGE": str(tmp_path), "CIPHERSHIFT_MODELS": str(zoo)}
        done = run(*arguments, "--json", environment=environment | {"CIPHERSHIFT_ALLOW_TOY_PARAMETERS": "true"})
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer.pop("database") == f"sqlite:///{tmp_path}/ciphershift.db"
        return answer

    return ask


def test_a_tenant_from_its_first_day_to_its_last(ask: Ask) -> None:
    assert ask("tenants", "create", "clinic", "--queries-per-day", "5") == {"created": "clinic"}
    key = ask("tenants", "key", "clinic", "--days", "1")["key"]
    given = {"lookups_per_day": 7, "requests_per_second": 0.5, "queries_per_day": None}
    limits = ("--lookups-per-day", "7", "--requests-per-second", "0.5", "--default", "queries-per-day")
    assert ask("tenants", "set", "clinic", *limits) == {"tenant": "clinic", "limits": given}
    (row,) = ask("tenants", "list")["rows"]
    assert {limit: row[limit] for limit in given} == given
    assert row["api_key"] == key.split("_")[1]
    assert row["closed"] is row["revoked"] is None
    assert ask("tenants", "usage", "clinic") == {"rows": []}
    closed = ask("tenants", "close", "clinic", "--erase")
    assert closed == {"closed": "clinic", "erased": True, "jobs": 0, "bundles": 0}
    acts = [row["action"] for row in ask("tenants", "audit")["rows"]]
    assert acts == ["tenant.erase", "tenant.close", "tenant.set", "key.make", "tenant.create"]
    assert key not in json.dumps(ask("tenants", "audit"))


def test_models_are_listed_loaded_and_unloaded(ask: Ask) -> None:
    assert ask("repository", "unload", "tiny") == {"model": "tiny"}
    assert ask("repository", "load", "tiny") == {"model": "tiny", "version": "1"}
    (row,) = ask("repository", "index")["rows"]
    assert (row["model"], row["state"], row["lookups"], row["quota"]) == ("tiny", "READY", 144, None)
    acts = [(row["action"], row["target"], row["actor"]) for row in ask("tenants", "audit")["rows"]]
    assert acts == [(action, "tiny", operator()) for action in ("model.load", "model.unload")]


def test_the_quota_of_a_models_card_is_in_the_index(zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "tiny", tmp_path / "models/tiny")
    quota = {"answers": 321, "agreement": 0.9}
    (tmp_path / "models/tiny/card.json").write_text(json.dumps({"recommended_quota": quota}))
    environment = {"CIPHERSHIFT_STORAGE": str(tmp_path), "CIPHERSHIFT_MODELS": str(tmp_path / "models")}
    environment |= {"CIPHERSHIFT_ALLOW_TOY_PARAMETERS": "true"}
    (row,) = json.loads(run("repository", "index", "--json", environment=environment).stdout)["rows"]
    assert (row["model"], row["quota"]) == ("tiny", 321)
    assert " 321 " in run("repository", "index", environment=environment).stdout


def test_usage_after_a_job_is_told_to_people_and_to_programs(ask: Ask, tmp_path: Path) -> None:
    state = State(Settings(storage=str(tmp_path)))
    state.jobs.finish(state.running(), b"logits", 1.0, 0.1)
    state.database.close()
    used = {"images": 2, "lookups": 20, "bytes_received": len(b"images"), "bytes_sent": len(b"logits")}
    (row,) = ask("tenants", "usage", "local")["rows"]
    assert row == {"tenant": "local", "day": datetime.now(UTC).date().isoformat()} | used
    assert ask("tenants", "usage")["rows"] == [row]
    shown = run("tenants", "usage", "local", environment={"CIPHERSHIFT_STORAGE": str(tmp_path)}).stdout
    assert all(str(value) in shown for value in row.values())


def test_migrations_and_settings_are_told_to_programs(tmp_path: Path) -> None:
    environment = {"CIPHERSHIFT_DATABASE": f"sqlite:///{tmp_path}/own.db", "CIPHERSHIFT_STORAGE": str(tmp_path)}
    for arguments, revision in ((("--to", "0001"), "0001"), ((), "0003")):
        told = json.loads(run("migrate", *arguments, "--json", environment=environment).stdout)
        assert told == {"database": f"sqlite:///{tmp_path}/own.db", "revision": revision}
    environment["CIPHERSHIFT_DATABASE"] = "postgresql://me:geheim@h/d"
    printed = json.loads(run("settings", "--json", environment=environment).stdout)
    assert printed["CIPHERSHIFT_DATABASE"] == "postgresql+psycopg://me:***@h/d"
    assert printed.keys() == {f"CIPHERSHIFT_{name.upper()}" for name in Settings.model_fields}
    lines = run("settings", environment=environment).stdout.splitlines()
    assert lines == [f"{name}={value}" for name, value in printed.items()]


@pytest.mark.parametrize("arguments", [("tenants", "create", "clinic"), ("tenants", "list"), ("tenants", "audit")])
def test_people_are_told_the_database_beside_the_answer(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, environment={"CIPHERSHIFT_STORAGE": str(tmp_path)})
    assert done.stderr.splitlines()[-1] == f"database: sqlite:///{tmp_path}/ciphershift.db"
    assert "sqlite" not in done.stdout


@pytest.mark.parametrize("limits", [(), ("--default", "wishes")])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, limits: tuple[str, ...]) -> None:
    environment = {"CIPHERSHIFT_STORAGE": str(tmp_path)}
    assert run("tenants", "create", "clinic", environment=environment).returncode == 0
    done = run("tenants", "set", "clinic", *limits, environment=environment)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "configuration")
