"""Whose job is next, what is accepted, and what becomes of the answers of a job that waits in its middle; on both databases."""

import time
from pathlib import Path

import pytest
from sqlalchemy import select

from ciphershift import errors
from ciphershift.server.store import states
from ciphershift.server.store.database import Job, Tenant
from ciphershift.server.store.jobs import answer_blob
from ciphershift.server.store.turns import TURN_LOOKUPS
from tests.server.store.conftest import State


def served(state: State, count: int) -> list[str]:
    """Tenants of the next jobs, each evaluated whole."""
    tenants = []
    for _ in range(count):
        job = state.jobs.claim("runner")
        assert job is not None
        tenants.append(job.tenant_id)
        state.jobs.finish(job, b"logits", 1.0, 0.0)
    return tenants


def test_a_tenant_with_many_jobs_delays_anothers_single_job_by_one(state: State) -> None:
    other = state.tenants.create("other").id
    for _ in range(20):
        state.submit()
    first = state.jobs.claim("runner")
    assert first is not None
    state.submit(tenant_id=other)
    state.jobs.finish(first, b"logits", 1.0, 0.0)
    assert served(state, 2).index(other) <= 1


def test_turns_are_counted_in_lookups_and_not_in_jobs(state: State) -> None:
    other = state.tenants.create("other").id
    for _ in range(4):
        state.submit(images=1, lookups=400)
        state.submit(tenant_id=other, images=1, lookups=100)
    order = served(state, 6)
    assert order.count(other) == 4, "four small jobs are as much as one large"


def test_a_tenant_cannot_save_up_turns(state: State) -> None:
    other = state.tenants.create("other").id
    for _ in range(10):
        state.submit(images=1)
    served(state, 5)
    for _ in range(5):
        state.submit(tenant_id=other, images=1)
    assert served(state, 4).count(other) == 2


def test_a_tenant_that_worked_alone_is_not_punished_later(state: State) -> None:
    for _ in range(5):
        state.submit(images=1)
    served(state, 5)
    other = state.tenants.create("other").id
    for _ in range(5):
        state.submit(tenant_id=other, images=1)
        state.submit(images=1)
    assert served(state, 4).count(other) == 2


def test_a_long_job_yields_between_images_and_goes_on_where_it_was(state: State) -> None:
    other = state.tenants.create("other").id
    long = state.running(images=3)
    state.submit(tenant_id=other, images=1)
    assert not state.jobs.keep(long, [b"<0>"], 2.0, 0.5), "the other tenant is next"
    waiting = state.jobs.get(state.tenant, long.id)
    assert (waiting.state, waiting.images_kept, waiting.attempt) == (states.PENDING, 1, 0)
    (between,) = served(state, 1)
    assert between == other
    again = state.jobs.claim("runner")
    assert again is not None
    assert (again.id, again.images_kept, again.images_done, again.bootstraps_done) == (long.id, 1, 1, 10)
    assert state.jobs.keep(again, [b"<1>"], 1.0, 0.0), "nobody else waits"
    assert state.jobs.finish(again, b"<2>", 1.0, 0.0) == states.COMPLETED
    done = state.jobs.get(state.tenant, long.id)
    assert state.jobs.result(done) == b"<0><1><2>"
    assert (done.seconds, done.key_seconds) == (4.0, 0.5)
    assert [path.name for path in Path(state.settings.storage).glob(f"jobs/{long.id}*")] == [f"{long.id}.result-1"]


def test_a_long_image_makes_way_when_it_has_been_saved_and_is_charged_once(state: State) -> None:
    other = state.tenants.create("other").id
    long = state.running(images=1, lookups=10 * TURN_LOOKUPS)
    for turn in range(3):
        assert not state.jobs.pause(long, turn * TURN_LOOKUPS + 1), "nobody else waits"
        state.submit(tenant_id=other, images=1, lookups=100)
        saved = (turn + 1) * TURN_LOOKUPS
        assert state.jobs.pause(long, saved)
        waiting = state.jobs.get(state.tenant, long.id)
        assert (waiting.state, waiting.attempt, waiting.bootstraps_done) == (states.PENDING, 0, saved)
        assert served(state, 1) == [other]
        again = state.jobs.claim("runner")
        assert again is not None
        assert again.id == long.id
        long = again
    assert state.jobs.finish(long, b"<0>", 1.0, 0.0) == states.COMPLETED
    assert turn_of(state, state.tenant) == 10 * TURN_LOOKUPS


def turn_of(state: State, tenant: str) -> float:
    with state.database.reading() as session:
        return session.scalar(select(Tenant.turn).where(Tenant.id == tenant)) or 0.0


def test_a_canceled_job_is_not_paused(state: State) -> None:
    long = state.running(images=1)
    state.submit(tenant_id=state.tenants.create("other").id, images=1)
    state.jobs.cancel(state.tenant, long.id)
    assert not state.jobs.pause(long, 5)


def test_kept_answers_survive_the_loss_of_a_runner_and_a_stale_one_changes_nothing(state: State) -> None:
    job = state.running(images=2)
    assert state.jobs.keep(job, [b"<0>"], 1.0, 0.0)
    assert state.jobs.fail(job, errors.WorkerLostError("died")) == states.PENDING
    again = state.jobs.claim("another")
    assert again is not None
    assert again.images_kept == 1
    assert not state.jobs.keep(job, [b"<1>"], 1.0, 0.0), "it is no longer this runner's"
    assert state.jobs.finish(again, b"<1>", 1.0, 0.0) == states.COMPLETED
    assert state.jobs.result(state.jobs.get(state.tenant, job.id)) == b"<0><1>"


def test_a_lost_answer_fails_the_job_with_the_reason(state: State) -> None:
    job = state.running(images=2)
    state.jobs.keep(job, [b"<0>"], 1.0, 0.0)
    state.blobs.delete(answer_blob(job, 0))
    with pytest.raises(errors.CiphershiftError, match="no longer in the store"):
        state.jobs.finish(job, b"<1>", 1.0, 0.0)


def test_the_queue_is_bounded_for_each_tenant_and_for_all(state: State) -> None:
    state = state.again(queue_depth=2, queue_depth_total=4)
    one, two, three = (state.tenants.create(name).id for name in ("one", "two", "three"))
    for _ in range(3):
        state.submit(tenant_id=one)
    with pytest.raises(errors.BusyError, match="3 of your jobs"):
        state.submit(tenant_id=one)
    state.submit(tenant_id=two)
    state.submit(tenant_id=two)
    with pytest.raises(errors.BusyError, match="of the service is full"):
        state.submit(tenant_id=three)
    state.tenants.set("one", queue_depth=0)
    state.database.close()


def measured(state: State, seconds: float) -> None:
    """Lets jobs of 20 look-ups take so long."""
    job = state.running()
    state.jobs.finish(job, b"logits", seconds, 0.0)


def test_a_job_that_cannot_meet_its_deadline_is_refused(state: State) -> None:
    measured(state, 60.0)  # 3 s a look-up; the deadline is 600 s
    state.submit(images=20)
    with pytest.raises(errors.DeadlineError, match=r"630 s of computing.*fewer images"):
        state.submit(images=21)


def test_a_job_that_would_wait_past_its_deadline_is_refused(state: State) -> None:
    measured(state, 60.0)
    state.submit(images=15)
    with pytest.raises(errors.BusyError, match="about 750 s"):
        state.submit(images=10)
    state.submit(images=5)


def test_a_full_queue_of_one_tenant_does_not_count_against_the_deadline_of_another(state: State) -> None:
    measured(state, 60.0)
    state.submit(images=19)
    other = state.tenants.create("other").id
    state.submit(tenant_id=other, images=5)
    with pytest.raises(errors.BusyError):
        state.submit(tenant_id=other, images=12)


def test_lookups_have_a_quota_too(state: State) -> None:
    tenant = state.tenants.create("small", lookups_per_day=50).id
    state.submit(tenant_id=tenant, images=4)
    with pytest.raises(errors.QuotaExceededError, match="40 of 50 look-ups"):
        state.submit(tenant_id=tenant, images=2)
    state.tenants.set("small", lookups_per_day=None)
    state.submit(tenant_id=tenant, images=2)


def test_others_load_is_not_told(state: State) -> None:
    for _ in range(3):
        state.submit()
    other = state.submit(tenant_id=state.tenants.create("other").id)
    assert state.jobs.ahead(other) == 0


def test_a_request_that_the_database_refuses_leaves_no_blob(state: State) -> None:
    for request_id in ("a\0b", 5 << 70):
        try:
            job = state.submit(request_id=request_id)
        except Exception:
            continue
        with state.database.writing() as session:  # SQLite takes both
            session.delete(session.get_one(Job, job.id))
        state.blobs.delete(f"jobs/{job.id}.request")
    assert list(Path(state.settings.storage).glob("jobs/*")) == []


def test_a_closed_tenants_jobs_are_canceled(state: State) -> None:
    key = state.tenants.create("leaver")
    job = state.submit(tenant_id=key.id)
    state.tenants.close("leaver", "operator:me")
    assert state.jobs.claim("runner") is None
    assert [swept.id for swept in state.jobs.sweep()] == [job.id]
    assert state.state_of(job) == states.CANCELED
    assert time.time() >= (state.jobs.get(key.id, job.id).finished or 0)
