"""The backup of SQLite and its store that docs/operations.md describes, done as it stands there."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import TenantStore
from tests.support.documents import ROOT, blocks

BEFORE = [f"before-{i}" for i in range(40)]
LATER = [f"later-{i}" for i in range(200)]
REMOVAL = "rm -f state/ciphershift.db-wal state/ciphershift.db-shm\n"


def commands(part: str) -> str:
    """The one block of the page that has this text."""
    (found,) = [block.text for block in blocks(ROOT / "docs/operations.md") if part in block.text]
    return found


def shell(text: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(folder), "CIPHERSHIFT_STORAGE": str(folder / "state")}
    done = subprocess.run(
        ["bash", "-euc", text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def tenants(file: Path) -> tuple[str, list[str]]:
    """What SQLite says of a database's soundness, and the names of its tenants."""
    connection = sqlite3.connect(file)
    (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
    names = [name for (name,) in connection.execute("SELECT name FROM tenants ORDER BY created")]
    connection.close()
    return sound, names


@pytest.fixture
def backed_up(tmp_path: Path) -> Path:
    """A folder with a backup, and with the state of a server that went on after it and was then killed."""
    state, live = tmp_path / "state", tmp_path / "live"
    database = Database.open(f"sqlite:///{state}/ciphershift.db")
    (state / "jobs").mkdir()
    (state / "jobs/one").write_bytes(b"answer")
    (state / "spool").mkdir()
    (state / "spool/upload").write_bytes(b"half a bundle")
    store = TenantStore(database)
    for name in BEFORE:
        store.create(name, "test")
    shell(commands("VACUUM INTO"), tmp_path)
    (state / "jobs/one").unlink()
    for name in LATER:
        store.create(name, "test")
    shutil.copytree(state, live)  # as a kill leaves it: the last process that closes SQLite tidies up
    database.close()
    shutil.rmtree(state)
    live.rename(state)
    assert (state / "ciphershift.db-wal").stat().st_size > 0
    return tmp_path


def test_what_was_backed_up_is_restored_and_nothing_else(backed_up: Path) -> None:
    shell(commands(REMOVAL), backed_up)
    assert tenants(backed_up / "state/ciphershift.db") == ("ok", BEFORE)
    assert (backed_up / "state/jobs/one").read_bytes() == b"answer"


def test_the_archive_of_the_store_has_nothing_of_the_database(backed_up: Path) -> None:
    listed = subprocess.run(["tar", "-tf", "backup.tar"], cwd=backed_up, capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == ["state/", "state/jobs/", "state/jobs/one"]


def test_a_foreign_log_beside_the_database_is_what_would_spoil_it(backed_up: Path) -> None:
    """Without the removal SQLite takes the log for the database's own."""
    script = commands(REMOVAL).replace(REMOVAL, "").replace("ciphershift migrate\n", "")
    shell(script, backed_up)
    try:
        found = tenants(backed_up / "state/ciphershift.db")
    except sqlite3.DatabaseError:
        return
    assert found != ("ok", BEFORE)
