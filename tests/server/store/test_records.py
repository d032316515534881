"""Usage, audit, off-boarding, orphans, lost and damaged keys, and migrations up and back; on both databases."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ciphershift import errors
from ciphershift.he_layers.crypto import params
from ciphershift.server.settings import Settings
from ciphershift.server.store import audit, erasure, orphans, usage
from ciphershift.server.store.database import Database, Job, KeyBundle
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.tenants import Scope
from tests.server.store.conftest import State

TOY = params.get("TOY_N128")


async def arriving(data: bytes) -> AsyncIterator[bytes]:
    yield data


def keys_of(state: State, data: bytes) -> KeyStore:
    return KeyStore(state.database, state.blobs, state.settings, lambda: {TOY.id: len(data)})


def put(keys: KeyStore, tenant: str, bundle: tuple[str, bytes]) -> None:
    anyio.run(keys.add, tenant, bundle[0], arriving(bundle[1]), len(bundle[1]))


def blobs(state: State, folder: str) -> list[str]:
    return sorted(path.name for path in Path(state.settings.storage).glob(f"{folder}/**/*") if path.is_file())


def test_usage_is_recorded_by_tenant_and_day(state: State, bundle: tuple[str, bytes]) -> None:
    put(keys_of(state, bundle[1]), state.tenant, bundle)
    for _ in range(2):
        state.jobs.finish(state.running(), b"logits", 1.0, 0.1)
    other = state.tenants.create("other").id
    state.jobs.fail(state.running(tenant_id=other), errors.DeadlineError("late"))
    state.submit()
    today = datetime.now(UTC).date().isoformat()
    with state.database.reading() as session:
        records = dict(usage.of(session, None, today, today))
        assert usage.of(session, None, "2000-01-01", "2000-01-02") == []
        assert [name for name, _ in usage.of(session, "local", today, today)] == ["local"]
    used = records["local"]
    assert (used.images, used.lookups) == (4, 40)
    assert used.bytes_received == len(bundle[1]) + 3 * len(b"images")
    assert used.bytes_sent == 2 * len(b"logits")
    assert (records["other"].images, records["other"].bytes_received) == (0, len(b"images"))


def test_administrative_acts_are_recorded_without_secrets(state: State) -> None:
    state.tenants.create("clinic", "operator:me", queries_per_day=5)
    key = state.tenants.make_key("clinic", [Scope.INFER], "operator:me")
    state.tenants.revoke(key.split("_")[1], "operator:me")
    state.tenants.set("clinic", "operator:me", queries_per_day=None, key_bytes=7)
    state.tenants.close("clinic", "operator:me")
    with state.database.reading() as session:
        records = audit.newest(session, 5)
    assert [record.action for record in records] == [
        "tenant.close",
        "tenant.set",
        "key.revoke",
        "key.make",
        "tenant.create",
    ]
    assert {record.actor for record in records} == {"operator:me"}
    assert records[1].detail == "queries_per_day=default key_bytes=7"
    assert not any(key.split("_", 2)[2] in record.detail for record in records)


def test_a_closed_tenant_is_refused_and_can_be_erased(state: State, bundle: tuple[str, bytes]) -> None:
    tenant = state.tenants.create("leaver").id
    key = state.tenants.make_key("leaver", [Scope.INFER])
    put(keys_of(state, bundle[1]), tenant, bundle)
    state.jobs.finish(state.running(tenant_id=tenant), b"logits", 1.0, 0.1)
    state.submit(tenant_id=tenant)
    kept = state.submit()
    with pytest.raises(errors.ConfigurationError, match="not closed"):
        erasure.erase(state.database, state.blobs, "leaver", "operator:me")
    state.tenants.authenticate(f"Bearer {key}")
    state.tenants.close("leaver")
    with pytest.raises(errors.UnauthorizedError):
        state.tenants.authenticate(f"Bearer {key}")
    with pytest.raises(errors.ConfigurationError, match="is closed"):
        state.tenants.make_key("leaver", [Scope.INFER])
    assert erasure.erase(state.database, state.blobs, "leaver", "operator:me") == (2, 1)
    assert blobs(state, "keys") == []
    assert blobs(state, "jobs") == [f"{kept.id}.request"]
    assert state.jobs.newest(tenant, 10) == []


def test_a_store_that_takes_no_more_bytes_is_full(state: State) -> None:
    """A full disk still takes an empty file; a process that may write no longer files sees the same."""
    state.blobs.check()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError):
            state.blobs.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_blobs_without_rows_are_swept_and_others_stay(state: State, bundle: tuple[str, bytes]) -> None:
    put(keys_of(state, bundle[1]), state.tenant, bundle)
    done = state.running()
    state.jobs.finish(done, b"logits", 1.0, 0.1)
    waiting = state.submit()
    state.blobs.write(f"jobs/{'0' * 32}.request", b"orphan")
    state.blobs.write(f"jobs/{'0' * 32}.answer-0", b"orphan")
    state.blobs.write(f"keys/{'0' * 32}/{'0' * 64}-1234.keys", b"orphan")
    folder = Path(state.settings.storage)
    (folder / "spool").mkdir(exist_ok=True)
    (folder / "spool" / "left-by-a-killed-process").write_bytes(b"spool")
    assert orphans.sweep(state.database, state.blobs) == 0, "they are young"
    before = time.time() - 2 * orphans.AGE_SECONDS
    for path in folder.glob("**/*"):
        os.utime(path, (before, before))
    with state.blobs.spool() as spool:
        os.utime(spool.path, (before, before))
        assert orphans.sweep(state.database, state.blobs) == 3
        assert spool.path.exists(), "its process lives"
    assert sorted(name.partition(".")[0] for name in blobs(state, "jobs")) == sorted([waiting.id, done.id])
    assert len(blobs(state, "keys")) == 1
    assert blobs(state, "spool") == []


@pytest.mark.parametrize("ask", ["find", "file"])
def test_a_lost_blob_drops_its_row_so_that_the_keys_can_be_uploaded_again(
    state: State, bundle: tuple[str, bytes], ask: str
) -> None:
    keys = keys_of(state, bundle[1])
    put(keys, state.tenant, bundle)
    (stored,) = Path(state.settings.storage).glob("keys/*/*")
    stored.unlink()
    with pytest.raises(errors.UnknownKeyError):
        getattr(keys, ask)(state.tenant, bundle[0])
    with state.database.reading() as session:
        assert session.get(KeyBundle, (state.tenant, bundle[0])) is None
    put(keys, state.tenant, bundle)
    assert keys.file(state.tenant, bundle[0])[0].read_bytes() == bundle[1]


def test_to_forget_an_older_blob_does_not_hit_a_newer_one(state: State, bundle: tuple[str, bytes]) -> None:
    keys = keys_of(state, bundle[1])
    put(keys, state.tenant, bundle)
    _, old = keys.file(state.tenant, bundle[0])
    keys.delete(state.tenant, bundle[0])
    put(keys, state.tenant, bundle)
    keys.forget(state.tenant, bundle[0], old)
    assert keys.file(state.tenant, bundle[0])[0].read_bytes() == bundle[1]


def test_an_error_of_the_database_does_not_print_what_was_sent_to_it(state: State) -> None:
    with pytest.raises(SQLAlchemyError) as caught, state.database.reading() as session:
        session.execute(text("SELECT * FROM nowhere WHERE name = :name"), {"name": "an-idempotency-key"})
    assert "nowhere" in str(caught.value)
    assert "an-idempotency-key" not in str(caught.value)


def test_uploads_are_admitted_before_they_are_read(state: State, bundle: tuple[str, bytes]) -> None:
    keys = keys_of(state, bundle[1])
    small = state.tenants.create("small", key_bytes=len(bundle[1]) + 10).id
    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b""

    with pytest.raises(errors.QuotaExceededError):
        anyio.run(keys.add, small, bundle[0], counted(), len(bundle[1]) + 11)
    assert read == 0

    async def together() -> None:
        go_on, begun = anyio.Event(), 0

        async def waiting() -> AsyncIterator[bytes]:
            nonlocal begun
            begun += 1
            await go_on.wait()
            yield bundle[1]

        async def until_begun(uploads: int) -> None:
            with anyio.fail_after(300):
                while begun < uploads:
                    await anyio.sleep(0.01)

        most = state.settings.uploads_per_tenant
        async with anyio.create_task_group() as group:
            for _ in range(most):
                group.start_soon(keys.add, state.tenant, bundle[0], waiting(), 10)
            await until_begun(most)
            with pytest.raises(errors.BusyError, match="uploads are under way"):
                await keys.add(state.tenant, bundle[0], counted(), 10)
            group.start_soon(keys.add, small, bundle[0], waiting(), len(bundle[1]))
            await until_begun(most + 1)
            with pytest.raises(errors.QuotaExceededError, match="would be added"):
                await keys.add(small, "ab" * 32, counted(), 20)
            go_on.set()

    anyio.run(together)
    assert len(blobs(state, "keys")) == 2, "the same bundle again is one blob"


def test_a_tenants_own_keys_go_first_and_others_in_use_stay(state: State, bundle: tuple[str, bytes]) -> None:
    size = len(bundle[1])
    state = state.again(storage_bytes=size + 10)
    keys, other = keys_of(state, bundle[1]), state.tenants.create("other").id
    put(keys, other, bundle)
    with pytest.raises(errors.BusyError, match="others use theirs"):
        put(keys, state.tenant, bundle)
    assert keys.find(other, bundle[0]).bytes == size
    with state.database.writing() as session:
        session.get_one(KeyBundle, (other, bundle[0])).used -= 2 * 86400
    put(keys, state.tenant, bundle)
    with pytest.raises(errors.UnknownKeyError):
        keys.find(other, bundle[0])
    assert len(blobs(state, "keys")) == 1
    state.database.close()


NEWEST = "0003"  # revision of the database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    database = request.getfixturevalue("postgres")() if request.param == "postgresql" else ""
    return Settings(database=database, storage=str(tmp_path)).database_url


def migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


def columns(database: Database, table: str = "key_bundles") -> list[str]:
    with database.reading() as session:
        return list(session.execute(text(f"SELECT * FROM {table}")).keys())


JOB = {
    "id": "j1",
    "tenant_id": "t1",
    "body_sha256": "b",
    "model": "tiny",
    "model_version": "1",
    "model_digest": "d",
    "key_id": "k1",
    "images": 2,
    "state": "in_progress",
    "created": 0,
    "deadline": 0,
    "has_result": False,
    "attempt": 1,
    "cancel_requested": False,
    "revision": 1,
    "bootstraps_done": 3,
    "bootstraps_total": 10,
    "images_done": 0,
}
BUNDLE = {"tenant_id": "t1", "key_id": "k1", "params_id": "p", "bytes": 5, "created": 0, "used": 0}


def insert(database: Database, table: str, row: dict[str, object]) -> None:
    names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    with database.writing() as session:
        session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


@pytest.mark.parametrize(
    ("start", "blob"), [(None, None), ("0001", "keys/t1/k1.keys"), ("0002", "keys/t1/k1-0a1b2c3d.keys")]
)
def test_every_older_state_is_migrated_by_several_at_once_and_back(
    url: str, start: str | None, blob: str | None
) -> None:
    """An empty database, and those of older releases with rows."""
    database = Database(url)
    if start is not None:
        database.migrate(start)
        insert(database, "tenants", {"id": "t1", "name": "clinic", "created": 0})
        insert(database, "jobs", JOB)
        insert(database, "key_bundles", BUNDLE if start == "0001" else BUNDLE | {"blob": blob})
    with pytest.raises(errors.NotReadyError, match=f"at revision {start}, .* needs {NEWEST}: run ciphershift migrate"):
        database.check()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(url), range(4)))
    database.check()
    if start is not None:
        with database.reading() as session:
            assert session.get_one(KeyBundle, ("t1", "k1")).blob == blob
            assert session.get_one(Job, "j1").bootstraps_charged == 10
    database.migrate("0002")
    assert "bootstraps_charged" not in columns(database, "jobs")
    database.migrate("0001")
    assert "blob" not in columns(database)
    with database.reading() as session:  # the older release would not find a blob of a newer name
        assert session.execute(text("SELECT count(*) FROM key_bundles")).scalar() == int(start == "0001")
        assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == int(start is not None)
    database.migrate()
    database.check()
    database.close()


def test_processes_that_start_at_once_migrate_one_empty_database(url: str, tmp_path: Path) -> None:
    environment = os.environ | {"CIPHERSHIFT_DATABASE": url, "CIPHERSHIFT_STORAGE": str(tmp_path)}
    command = [sys.executable, "-m", "ciphershift", "migrate", "--json"]
    replicas = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for said, complained in [replica.communicate() for replica in replicas]:
        assert said, complained
        assert json.loads(said)["revision"] == NEWEST
    database = Database(url)
    database.check()
    database.close()


def test_a_database_of_a_later_release_is_refused_in_one_sentence(url: str) -> None:
    database = Database(url)
    database.migrate()
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for call in (database.check, database.migrate):
        with pytest.raises(
            errors.NotReadyError, match=rf"revision 9999, which this release does not know .*migrate --to {NEWEST}"
        ):
            call()
    with pytest.raises(errors.ConfigurationError, match="knows 0001, 0002, 0003"):
        database.migrate("1234")
    database.close()


def test_a_spool_of_a_killed_process_is_cleaned_at_the_next_start(tmp_path: Path) -> None:
    state = State(Settings(storage=str(tmp_path)))
    left = tmp_path / "spool" / "left"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half a bundle")
    os.utime(left, (0, 0))
    again: Callable[[], State] = state.again
    again().database.close()
    assert not left.exists()
