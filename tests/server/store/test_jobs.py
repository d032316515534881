"""State that lasts, the same on SQLite and on a real PostgreSQL: tenants, keys, jobs, quotas, recovery."""

import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ciphershift import errors
from ciphershift.he_layers.crypto import params
from ciphershift.server.engine.base import LayerProgress
from ciphershift.server.settings import Settings
from ciphershift.server.store import states
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Base, Database, Job, RunnerLease
from ciphershift.server.store.jobs import MAX_ATTEMPTS, request_blob, result_blob
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.tenants import Scope
from tests.server.store.conftest import State

TOY = params.get("TOY_N128")


def test_migrations_make_the_tables_that_the_code_describes(state: State) -> None:
    with state.database._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_without_tables_is_refused(postgres: Callable[[], str]) -> None:
    database = Database(Settings(database=postgres()).database_url)
    with pytest.raises(errors.NotReadyError, match="ciphershift migrate"):
        database.check()
    database.close()


def test_an_accepted_job_survives_a_restart(state: State) -> None:
    job = state.submit()
    again = state.again()
    known = again.jobs.get(state.tenant, job.id)
    assert (known.state, known.images, known.bootstraps_total) == (states.PENDING, 2, 20)
    assert again.jobs.images(known) == b"images"
    again.database.close()


def test_a_job_is_claimed_once_however_many_ask(state: State) -> None:
    jobs = {state.submit().id for _ in range(8)}
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda i: state.jobs.claim(f"runner{i}"), range(12)))
    assert {job.id for job in claimed if job} == jobs
    assert sum(job is not None for job in claimed) == 8


def test_tenants_take_turns(state: State) -> None:
    other = state.tenants.create("other").id
    for tenant in (state.tenant, state.tenant, state.tenant, other):
        state.submit(tenant_id=tenant)
    served = [job.tenant_id for _ in range(4) if (job := state.jobs.claim("runner"))]
    assert served == [state.tenant, other, state.tenant, state.tenant]


def test_a_result_lasts_as_long_as_promised_and_then_expires(state: State) -> None:
    job = state.running()
    with pytest.raises(errors.NotFinishedError):
        state.jobs.result(job)
    assert state.jobs.finish(job, b"logits", 1.0, 0.1) == states.COMPLETED
    again = state.again()
    again.jobs.sweep()
    done = again.jobs.get(state.tenant, job.id)
    assert again.jobs.result(done) == b"logits"
    assert done.expires == pytest.approx(time.time() + state.settings.result_seconds, abs=60)
    with again.database.writing() as session:
        session.get_one(Job, job.id).expires = time.time() - 1
    again.jobs.sweep()
    gone = again.jobs.get(state.tenant, job.id)
    with pytest.raises(errors.ExpiredError):
        again.jobs.result(gone)
    assert not list(Path(state.settings.storage).glob("jobs/*"))
    again.database.close()


def test_a_silent_runners_job_waits_again_and_its_late_result_does_not_count(state: State) -> None:
    job = state.running()
    with state.database.writing() as session:
        session.get_one(RunnerLease, "runner").expires -= 60
    assert [swept.id for swept in state.jobs.sweep()] == [job.id]
    assert state.state_of(job) == states.PENDING
    step = LayerProgress(layer="conv", seconds=1.0, lookups_done=5, lookups_saved=0, images_done=0)
    assert not state.jobs.advance(job, step)
    state.jobs.beat("second", 1)
    second = state.jobs.claim("second")
    assert second is not None
    assert state.jobs.finish(job, b"late", 1.0, 0.1) is None
    assert state.state_of(job) == states.IN_PROGRESS
    assert state.jobs.finish(second, b"logits", 1.0, 0.1) == states.COMPLETED
    assert state.jobs.result(state.jobs.get(state.tenant, job.id)) == b"logits"


def test_a_living_runner_keeps_its_job(state: State) -> None:
    job = state.running()
    assert state.jobs.sweep() == []
    assert state.state_of(job) == states.IN_PROGRESS


def test_a_job_that_loses_every_worker_fails_with_the_reason(state: State) -> None:
    job = state.running()
    for _ in range(MAX_ATTEMPTS - 1):
        assert state.jobs.fail(job, errors.WorkerLostError("died")) == states.PENDING
        again = state.jobs.claim("runner")
        assert again is not None
        job = again
    assert state.jobs.fail(job, errors.WorkerLostError("died")) == states.FAILED
    with pytest.raises(errors.WorkerLostError, match=f"{MAX_ATTEMPTS} times"):
        state.jobs.result(state.jobs.get(state.tenant, job.id))


def test_a_released_job_waits_again_without_losing_an_attempt(state: State) -> None:
    job = state.running()
    state.jobs.release(job)
    waiting = state.jobs.get(state.tenant, job.id)
    assert (waiting.state, waiting.attempt) == (states.PENDING, 0)


def test_a_job_that_waits_past_its_deadline_fails(state: State) -> None:
    job = state.submit()
    with state.database.writing() as session:
        session.get_one(Job, job.id).deadline = time.time() - 1
    assert state.jobs.claim("runner") is None
    assert [swept.id for swept in state.jobs.sweep()] == [job.id]
    with pytest.raises(errors.DeadlineError):
        state.jobs.result(state.jobs.get(state.tenant, job.id))


def test_a_waiting_job_is_canceled_at_once_a_running_one_by_its_runner(state: State) -> None:
    waiting = state.submit()
    canceled, ended = state.jobs.cancel(state.tenant, waiting.id)
    assert (canceled.state, ended) == (states.CANCELED, True)
    assert not state.jobs.cancel(state.tenant, waiting.id)[1]
    running = state.running()
    canceled, ended = state.jobs.cancel(state.tenant, running.id)
    assert (canceled.state, ended) == (states.IN_PROGRESS, False)
    assert not state.jobs.advance(running, None)
    assert state.jobs.stop(running) == states.CANCELED
    with pytest.raises(errors.CanceledError):
        state.jobs.result(state.jobs.get(state.tenant, running.id))
    assert not list(Path(state.settings.storage).glob("jobs/*"))


def test_deleting_a_finished_job_forgets_its_result(state: State) -> None:
    job = state.running()
    state.jobs.finish(job, b"logits", 1.0, 0.1)
    forgotten, _ = state.jobs.cancel(state.tenant, job.id)
    assert forgotten.state == states.COMPLETED
    with pytest.raises(errors.ExpiredError):
        state.jobs.result(forgotten)
    with pytest.raises(FileNotFoundError):
        state.blobs.read(result_blob(job))


def test_progress_is_stored(state: State) -> None:
    job = state.running()
    before = state.jobs.get(state.tenant, job.id).revision
    step = LayerProgress(layer="conv", seconds=0.2, lookups_done=5, lookups_saved=0, images_done=0)
    assert state.jobs.advance(job, step, 77.0)
    seen = state.jobs.get(state.tenant, job.id)
    assert (seen.layer, seen.bootstraps_done, seen.revision) == ("conv", 5, before + 1)
    assert seen.ready_at == 77.0


def test_the_same_idempotency_key_gives_the_same_job(state: State) -> None:
    first = state.submit(idempotency_key="k")
    assert state.submit(idempotency_key="k").id == first.id
    with pytest.raises(errors.IdempotencyConflictError):
        state.submit(idempotency_key="k", body_sha256="1")
    other = state.tenants.create("other").id
    assert state.submit(idempotency_key="k", tenant_id=other).id != first.id


def test_the_same_idempotency_key_at_once_gives_one_job(state: State) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: state.submit(idempotency_key="k").id, range(8)))
    assert len(set(jobs)) == 1
    assert len(list(Path(state.settings.storage).glob("jobs/*"))) == 1


def test_queries_are_counted_over_restarts_and_per_tenant(state: State) -> None:
    state = state.again(queries_per_day=3)
    state.submit(images=2)
    with pytest.raises(errors.QuotaExceededError) as refused:
        state.submit(images=2)
    assert refused.value.retry_after == pytest.approx(86400, abs=60)
    assert len(list(Path(state.settings.storage).glob("jobs/*"))) == 1
    again = state.again()
    again.submit(images=1)
    with pytest.raises(errors.QuotaExceededError):
        again.submit(images=1)
    again.submit(tenant_id=again.tenants.create("other").id)
    again.submit(tenant_id=again.tenants.create("generous", queries_per_day=10).id, images=10)
    with again.database.writing() as session:
        for job in session.query(Job):
            job.created -= 86400
    again.submit(images=3)
    again.database.close()


def test_two_requests_at_once_cannot_exceed_a_quota_together(state: State) -> None:
    state = state.again(queries_per_day=4)

    def submit(_: int) -> bool:
        try:
            state.submit(images=1)
        except errors.QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(8))) == 4
    state.database.close()


def test_a_full_queue_is_busy_and_keeps_nothing(state: State) -> None:
    state = state.again(queue_depth=2)
    for _ in range(3):  # two may wait for the one slot
        state.submit()
    with pytest.raises(errors.BusyError):
        state.submit()
    assert len(list(Path(state.settings.storage).glob("jobs/*"))) == 3
    state.jobs.beat("another", 1)
    state.submit()
    state.database.close()


def test_another_tenants_job_is_not_there(state: State) -> None:
    job = state.submit()
    other = state.tenants.create("other").id
    for call in (state.jobs.get, state.jobs.cancel):
        with pytest.raises(errors.UnknownJobError) as foreign:
            call(other, job.id)
        with pytest.raises(errors.UnknownJobError) as missing:
            call(other, "00" * 16)
        assert foreign.value.message.replace(job.id, "") == missing.value.message.replace("00" * 16, "")
    assert state.jobs.newest(other, 10) == []
    assert [known.id for known in state.jobs.newest(state.tenant, 10)] == [job.id]


async def _arriving(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_keys_are_their_tenants_own(state: State, bundle: tuple[str, bytes]) -> None:
    key_id, data = bundle
    keys = KeyStore(state.database, state.blobs, state.settings, lambda: {TOY.id: len(data)})
    other = state.tenants.create("other").id
    anyio.run(keys.add, state.tenant, key_id, _arriving(data), len(data))
    assert keys.find(state.tenant, key_id).bytes == len(data)
    assert keys.file(state.tenant, key_id)[0].read_bytes() == data
    for call in (keys.find, keys.delete, keys.file):
        with pytest.raises(errors.UnknownKeyError):
            call(other, key_id)
    anyio.run(keys.add, other, key_id, _arriving(data), None)
    keys.delete(state.tenant, key_id)
    assert keys.file(other, key_id)[0].read_bytes() == data


def test_bytes_of_keys_are_bounded_per_tenant(state: State, bundle: tuple[str, bytes]) -> None:
    key_id, data = bundle
    keys = KeyStore(state.database, state.blobs, state.settings, lambda: {TOY.id: len(data)})
    small = state.tenants.create("small", key_bytes=len(data) - 1).id
    with pytest.raises(errors.QuotaExceededError):
        anyio.run(keys.add, small, key_id, _arriving(data), len(data))
    assert not list(Path(state.settings.storage).glob("keys/*/*"))


def test_api_keys_are_hashed_scoped_expiring_and_revocable(state: State) -> None:
    state.tenants.create("clinic")
    key = state.tenants.make_key("clinic", [Scope.INFER])
    caller = state.tenants.authenticate(f"Bearer {key}")
    assert (caller.name, caller.scopes) == ("clinic", frozenset({Scope.INFER}))
    caller.require(Scope.INFER)
    with pytest.raises(errors.ForbiddenError, match="admin"):
        caller.require(Scope.ADMIN)
    secret = key.rpartition("_")[2] if key.count("_") == 2 else key.split("_", 2)[2]
    ((_, (row,)),) = [entry for entry in state.tenants.all() if entry[0].name == "clinic"]
    assert secret not in row.secret_sha256
    expired = state.tenants.make_key("clinic", [Scope.ADMIN], seconds=-1)
    state.tenants.authenticate(f"bearer {key}")
    state.tenants.revoke(row.id)
    wrong = [
        None,
        "",
        "Bearer",
        f"Basic {key}",
        f"Bearer {key}x",
        f"Bearer {key[:-1]}",
        f"Bearer {key}",
        f"Bearer {expired}",
    ]
    for authorization in wrong:
        with pytest.raises(errors.UnauthorizedError):
            state.tenants.authenticate(authorization)


def test_a_tenant_of_no_name_or_a_taken_one_is_refused(state: State) -> None:
    state.tenants.create("clinic")
    for name in ("clinic", "", "../x", "a" * 65):
        with pytest.raises(errors.ConfigurationError):
            state.tenants.create(name)
    with pytest.raises(errors.ConfigurationError, match="tenants create nobody"):
        state.tenants.make_key("nobody", [Scope.INFER])


@pytest.fixture(params=["memory", "s3"])
def object_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an object store."""
    return request.getfixturevalue("bucket") if request.param == "s3" else f"memory://{tmp_path.name}"


def test_blobs_in_a_store_that_is_no_folder(object_store: str, tmp_path: Path) -> None:
    blobs = Blobs(Settings(storage=object_store, database="sqlite://", cache=tmp_path))
    blobs.check()
    blobs.write("keys/a.keys", b"12")
    assert blobs.read("keys/a.keys") == b"12"
    local = blobs.local("keys/a.keys")
    assert local.read_bytes() == b"12"
    assert local.is_relative_to(tmp_path)
    with blobs.spool() as spool:
        spool.file.write(b"34")
        blobs.keep(spool, "keys/b.keys")
    assert blobs.read("keys/b.keys") == b"34"
    blobs.delete("keys/a.keys")
    blobs.delete("keys/a.keys")
    assert not local.exists()
    for read in (blobs.read, blobs.local):
        with pytest.raises(FileNotFoundError):
            read("keys/a.keys")
    assert request_blob("x") != request_blob("y")
