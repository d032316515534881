"""What an operator does by commands: each answer names the database it worked on, and is JSON for programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
