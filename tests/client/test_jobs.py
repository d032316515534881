"""Jobs of a real server: batches, cancellation, lost answers, restarts, tenants."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import AsyncClient, Client, Job, Keystore
from ciphershift.client._receipts import KEPT_SECONDS
from ciphershift.client._requests import Sleep, Step
from ciphershift.client._transport import SyncTransport
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.server.store.tenants import Scope
from tests.client.conftest import failing, give, passing
from tests.support import gated_server
from tests.support.gated_server import STARTING, Gate
from tests.support.tenants import tenant

Images = NDArray[np.uint8]
Between = Callable[[Callable[..., bool]], AbstractContextManager[Any]]


@pytest.mark.parametrize("waits_first", [True, False])
def test_waiting_counts_as_transfer_and_computing_does_not(
    client: Client, tiny_images: NDArray[np.uint8], waits_first: bool
) -> None:
    job = client.submit(tiny_images)
    if waits_first:
        sent = client.timings.transfer
        job.wait()
        assert client.timings.transfer > sent
    job.result()
    assert client.timings.server > 0
    assert client.timings.transfer >= 0
    job.result()  # long since computed
    assert client.timings.transfer >= 0


def test_a_job_is_submitted_now_and_read_later(client: Client, tiny_images: Images) -> None:
    job = client.submit(tiny_images)
    assert job.status.images == 4
    assert job.wait().state == "completed"
    logits = job.result()
    assert logits.shape == (4, 3)
    assert np.array_equal(job.result(), logits)
    assert job.profile == client.profile()
    assert job.id in [status.id for status in client.jobs()]
    assert len(client.jobs(limit=1)) == 1


def test_another_process_reads_what_this_one_has_asked(
    server: ServerProcess, keystore: Keystore, client: Client, tiny_images: Images
) -> None:
    job = client.submit(tiny_images[:2])
    code = (
        "import sys; from pathlib import Path; from ciphershift.client import Client, Keystore\n"
        "job = Client(sys.argv[1], keystore=Keystore(Path(sys.argv[2])), allow_toy_parameters=True).job(sys.argv[3])\n"
        "print(job.result().tolist())"
    )
    command = [sys.executable, "-c", code, server.url, str(keystore.folder), job.id]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(job.result().tolist())


def test_only_who_submitted_a_job_can_read_it(
    server: ServerProcess, client: Client, tiny_images: Images, tmp_path: Path
) -> None:
    job = client.submit(tiny_images[:1])
    with Client(server.url, keystore=Keystore(tmp_path), allow_toy_parameters=True) as other:
        assert other.job(job.id).wait().state == "completed"
        with pytest.raises(errors.UnknownJobError, match="was not submitted from"):
            other.job(job.id).result()


@pytest.mark.parametrize("job_id", ["0" * 32, "../../etc/passwd", "a/b", "?", "é"])
def test_a_job_that_is_not_there_is_unknown(client: Client, job_id: str) -> None:
    with pytest.raises(errors.UnknownJobError):
        client.job(job_id)


def test_a_job_can_be_canceled_and_forgotten(gated: tuple[Client, Gate], tiny_images: Images) -> None:
    client, gate = gated
    running = client.submit(tiny_images)
    running.cancel()
    assert running.wait().state == "canceled"
    with pytest.raises(errors.CanceledError):
        running.result()
    gate.open()
    finished = client.submit(tiny_images[:1])
    finished.result()
    finished.cancel()
    with pytest.raises(errors.ExpiredError):
        finished.result()


def test_a_wait_ends_with_its_time_and_the_job_goes_on(client: Client, tiny_images: Images) -> None:
    job = client.submit(np.concatenate([tiny_images] * 4))
    with pytest.raises(errors.DeadlineError, match="not finished after 0 s"):
        job.result(timeout=0)
    assert job.wait().state == "completed"
    with pytest.raises(errors.DeadlineError, match=re.escape("not finished after 0.001 s")):  # as it was asked
        client.predict(tiny_images, timeout=0.001)


def test_timings_and_traffic_belong_to_a_job(client: Client, tiny_images: Images) -> None:
    """Two jobs at once do not share them, and a job that is taken up later starts from zero."""
    one, other = client.submit(tiny_images[:1]), client.submit(tiny_images)
    one.result()
    spent = one.timings.total
    other.result()
    assert one.timings.total == spent > 0
    assert other.timings.server > 0
    assert len(one.traffic.ciphertexts) == 1
    assert len(other.traffic.ciphertexts) == 4
    assert other.traffic.received > one.traffic.received > 0
    assert client.timings is other.timings
    again = client.job(one.id)
    assert again.timings.total == again.traffic.sent == 0


def test_a_job_shows_what_is_known_of_it(client: Client, tiny_images: Images) -> None:
    job = client.submit(tiny_images)
    job.wait()
    assert repr(job) == f"Job(id={job.id!r}, model='tiny', images=4, state='completed')"


def test_a_client_goes_on_when_its_model_was_replaced(
    tiny_program: Program, keystore: Keystore, tiny_images: Images, tmp_path: Path
) -> None:
    """The profile is read again, once, when an answer is by another version of the model than it names."""
    models, storage = tmp_path / "models", tmp_path / "storage"
    tiny_program.save(models / "tiny")
    settings = {"models": models, "storage": storage, "allow_toy_parameters": True, "open": False}
    with running_server(**settings) as server:
        api_key = tenant(storage, "operator", Scope.INFER, Scope.KEYS, Scope.ADMIN)

        def replace_by(version: str) -> None:
            replace(tiny_program, version=version).save(models / "tiny")
            headers = {"Authorization": f"Bearer {api_key}"}
            loaded = httpx.post(f"{server.url}/v2/repository/models/tiny/load", headers=headers, timeout=60)
            assert loaded.status_code == 200, loaded.text

        with Client(server.url, keystore=keystore, api_key=api_key, allow_toy_parameters=True) as client:
            assert client.profile().version == "1"
            replace_by("2")
            assert client.predict(tiny_images).shape == (4, 3)
            assert client.profile().version == "2"
            assert [status.model_version for status in client.jobs()] == ["2", "2"]
            replace_by("3")
            with pytest.raises(errors.WrongAnswerError, match="read its profile again"):
                client.submit(tiny_images).result()  # its images are not kept, so they cannot be sent again
            assert client.submit(tiny_images).result().shape == (4, 3)
            assert client.profile().version == "3"


def test_old_receipts_go(client: Client, keystore: Keystore, tiny_images: Images) -> None:
    old = keystore.folder / "jobs" / "old.json"
    kept = client.submit(tiny_images[:1]).id
    old.write_text("{}")
    then = time.time() - KEPT_SECONDS - 1
    os.utime(old, (then, then))
    client.submit(tiny_images[:1])
    assert not old.exists()
    assert (keystore.folder / "jobs" / f"{kept}.json").exists()


def test_keys_that_were_replaced_meanwhile_are_said_so(
    server: ServerProcess, tiny_images: Images, tmp_path: Path
) -> None:
    with Client(server.url, model="tiny", keystore=Keystore(tmp_path), allow_toy_parameters=True) as client:
        job = client.submit(tiny_images[:1])
        (pair,) = (path for path in tmp_path.iterdir() if path.name != "jobs")
        pair.rename(tmp_path / "elsewhere")
        with pytest.raises(errors.WrongKeyError, match="no longer"):
            job.result()


def test_a_pair_that_was_stolen_is_replaced_as_operations_says(
    server: ServerProcess, tiny_images: Images, tmp_path: Path
) -> None:
    """The old bundle is gone, the new pair works, and who has the old one reads what was sent under it, and no more."""
    keys, stolen = tmp_path / "keys", tmp_path / "stolen"

    def client_of(folder: Path) -> Client:
        return Client(server.url, model="tiny", keystore=Keystore(folder), allow_toy_parameters=True)

    with client_of(keys) as client:
        old, before = client.prepare(), client.submit(tiny_images[:1])
        before.wait()
    shutil.copytree(keys, stolen)
    assert httpx.delete(f"{server.url}/v2/keys/{old}").status_code == 204
    (pair,) = (path for path in keys.iterdir() if path.name != "jobs")
    pair.rename(tmp_path / "put away")
    with client_of(keys) as client:
        new, after = client.prepare(), client.submit(tiny_images[:1])
        assert after.result().shape == (1, 3)
        with pytest.raises(errors.WrongKeyError):
            client.job(before.id).result()
    assert new != old
    assert httpx.head(f"{server.url}/v2/keys/{old}").status_code == 404
    for known in (keys / "jobs").iterdir():  # the thief has recorded everything
        shutil.copy(known, stolen / "jobs")
    with client_of(stolen) as thief:
        assert thief.job(before.id).result().shape == (1, 3)
        with pytest.raises(errors.WrongKeyError):
            thief.job(after.id).result()


# Batches


@pytest.fixture(scope="module")
def narrow(zoo: Path) -> Iterator[ServerProcess]:
    """A server that takes two images in one request, and on which one job may wait."""
    settings = {"models": zoo, "allow_toy_parameters": True, "engine": "local://?threads=2"}
    with running_server(max_batch=2, queue_depth=1, **settings) as process:
        yield process


def test_a_batch_is_cut_into_jobs_and_keeps_its_order(narrow: ServerProcess, keystore: Keystore) -> None:
    dark, bright = np.zeros((1, 8, 8), dtype=np.uint8), np.full((1, 8, 8), 255, dtype=np.uint8)
    images = np.stack([dark, bright, bright, dark, bright])
    with Client(narrow.url, keystore=keystore, allow_toy_parameters=True) as client:
        logits = client.predict(images)
        assert [status.images for status in client.jobs()] == [1, 2, 2]
    assert logits.shape == (5, 3)
    far = np.linalg.norm(logits[0] - logits[1])
    assert np.linalg.norm(logits[0] - logits[3]) < far / 2
    assert max(np.linalg.norm(logits[1] - logits[i]) for i in (2, 4)) < far / 2


def test_one_job_takes_no_more_than_the_server(narrow: ServerProcess, keystore: Keystore, tiny_images: Images) -> None:
    with Client(narrow.url, keystore=keystore, allow_toy_parameters=True) as client:
        with pytest.raises(errors.BadShapeError, match="1 to 2 images, got 4"):
            client.submit(tiny_images)
        client.submit(tiny_images[:2]).result()


def test_many_at_once_are_all_answered_though_few_may_wait(
    narrow: ServerProcess, keystore: Keystore, tiny_images: Images
) -> None:
    async def ask() -> list[NDArray[np.float64]]:
        async with AsyncClient(narrow.url, keystore=keystore, allow_toy_parameters=True) as client:
            await client.prepare()
            return await asyncio.gather(*(client.predict(tiny_images[:1]) for _ in range(8)))

    assert [logits.shape for logits in asyncio.run(ask())] == [(1, 3)] * 8


def test_a_client_without_patience_is_told_that_the_server_is_busy(
    narrow: ServerProcess, keystore: Keystore, tiny_images: Images
) -> None:
    with Client(narrow.url, keystore=keystore, allow_toy_parameters=True, retry_timeout=0) as client:
        jobs: list[Job] = []
        with pytest.raises(errors.BusyError):
            for _ in range(10):
                jobs.append(client.submit(tiny_images[:2]))
        assert all(job.wait().state == "completed" for job in jobs)


# Answers that are lost


def test_a_submission_whose_answer_is_lost_makes_one_job(
    between: Between, keystore: Keystore, tiny_images: Images
) -> None:
    lost: list[str] = []

    def lose_the_first(handler: Any, middle: Any) -> bool:
        if handler.command == "POST" and not lost:
            lost.append(middle.ask(handler).json()["id"])
            handler.close_connection = True
            return True
        return False

    with (
        between(lose_the_first) as middle,
        Client(middle.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client,
    ):
        assert client.submit(tiny_images[:1]).id == lost[0]
    posts = [
        h["Idempotency-Key"] for (method, _), h in zip(middle.seen, middle.headers, strict=True) if method == "POST"
    ]
    assert len(posts) == 2
    assert len(set(posts)) == 1


def test_keys_that_the_server_has_dropped_are_sent_again(
    server: ServerProcess, client: Client, tiny_images: Images
) -> None:
    key_id = client.prepare()
    assert httpx.delete(f"{server.url}/v2/keys/{key_id}").status_code == 204
    assert client.predict(tiny_images[:1]).shape == (1, 3)
    assert httpx.head(f"{server.url}/v2/keys/{key_id}").status_code == 200


@pytest.mark.parametrize(("code", "times"), [("model_changed", 1), ("unknown_key", 1), ("model_changed", 2)])
def test_a_job_of_which_nothing_was_computed_is_sent_once_more(
    between: Between, keystore: Keystore, tiny_images: Images, code: str, times: int
) -> None:
    """The server replaced the model after it accepted the job, or lost the keys; if that happens twice, the caller hears of it."""
    with (
        between(failing(code, times)) as middle,
        Client(middle.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client,
    ):
        if times == 1:
            assert client.predict(tiny_images).shape == (4, 3)
        else:
            with pytest.raises(errors.ModelChangedError):
                client.predict(tiny_images)
    assert sum(method == "POST" for method, _ in middle.seen) == 2


def damaged(bundle: bytes, _: Path) -> bytes:
    return bundle[:-1] + bytes([bundle[-1] ^ 1])


def another(_: bytes, folder: Path) -> bytes:
    return Keystore(folder).open(params.get("TOY_N128")).evaluation_keys.read_bytes()


@pytest.mark.parametrize("spoil", [damaged, another])
def test_keys_that_are_spoilt_in_the_store_while_a_job_waits_are_uploaded_again(
    zoo: Path, keystore: Keystore, tiny_images: Images, tmp_path: Path, spoil: Callable[[bytes, Path], bytes]
) -> None:
    """The worker refuses what the store holds, the server forgets it, and the client sends keys and images once more."""
    gate, storage = Gate(tmp_path / "gate"), tmp_path / "storage"
    gate.hold(STARTING)

    def spoil_before_it_is_computed(handler: Any, middle: Any) -> bool:
        if handler.command != "POST" or not gate.holds(STARTING):
            return False
        accepted = middle.ask(handler)
        (stored,) = storage.glob("keys/*/*.keys")
        stored.write_bytes(spoil(stored.read_bytes(), tmp_path / "other"))
        gate.open()
        give(handler, accepted)
        return True

    settings = {"models": zoo, "storage": storage, "allow_toy_parameters": True, "engine": "local://?threads=1"}
    with (
        running_server(
            program=("-P", gated_server.__file__, "serve"), gate=gate.path, wait_until_ready=False, **settings
        ) as server,
        passing(server.url, spoil_before_it_is_computed) as middle,
        Client(middle.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client,
    ):
        assert client.predict(tiny_images).shape == (4, 3)
    asked = [method for method, _ in middle.seen if method in ("PUT", "POST")]
    assert asked == ["PUT", "POST", "POST", "PUT", "POST"], "the second POST was refused: unknown_key"


def test_keys_are_read_from_the_disk_as_they_are_sent(
    server: ServerProcess, client: Client, keystore: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sync and async; a bundle is never in memory whole, and its length is announced."""
    monkeypatch.setattr("ciphershift.client._requests._CHUNK_BYTES", 1000)
    sizes: list[int] = []
    monkeypatch.setattr("ciphershift.client._progress.ProgressBar.uploaded", lambda _, count: sizes.append(count))
    key_id = client.prepare()
    bundle = keystore.open(params.get("TOY_N128")).evaluation_keys

    async def prepare() -> None:
        async with AsyncClient(server.url, keystore=keystore, allow_toy_parameters=True) as other:
            await other.prepare()

    def again() -> None:
        with Client(server.url, keystore=keystore, allow_toy_parameters=True) as other:
            other.prepare()

    for send in (again, lambda: asyncio.run(prepare())):
        sizes.clear()
        httpx.delete(f"{server.url}/v2/keys/{key_id}")
        send()
        assert sum(sizes) == bundle.stat().st_size
        assert max(sizes) == 1000


def test_a_job_outlives_the_death_of_its_server(
    zoo: Path, keystore: Keystore, tiny_images: Images, tmp_path: Path
) -> None:
    """The client waits through it, and takes its answer from the server that comes after."""
    settings = {"models": zoo, "allow_toy_parameters": True, "storage": tmp_path, "lease_seconds": 1, "max_batch": 64}
    with running_server(**settings) as first:
        port = int(first.url.rpartition(":")[2])
        client = Client(first.url, model="tiny", keystore=keystore, allow_toy_parameters=True, retry_timeout=300.0)
        job = client.submit(np.concatenate([tiny_images] * 4))
        rows: list[NDArray[np.float64]] = []
        waiting = threading.Thread(target=lambda: rows.append(job.result()))
        waiting.start()
        for pid in first.family():
            subprocess.run(["kill", "-9", str(pid)], check=False)
    with running_server(port=port, **settings):
        waiting.join()
        assert rows
        assert rows[0].shape == (16, 3)
        client.close()


# Interrupts


def test_an_interrupt_ends_the_work_on_the_server(
    gated: tuple[Client, Gate], tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = gated
    take = SyncTransport._take

    def interrupted(self: SyncTransport, step: Step) -> httpx.Response | None:
        if getattr(step, "path", "").endswith("/events"):
            raise KeyboardInterrupt
        return take(self, step)

    client.prepare()
    monkeypatch.setattr(SyncTransport, "_take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.predict(tiny_images)
    monkeypatch.undo()
    newest = client.job(client.jobs(limit=1)[0].id)
    assert newest.wait().state == "canceled"


@pytest.mark.parametrize("stage", ["/profile", "/jobs", "/events"])
def test_a_canceled_coroutine_ends_the_work_on_the_server(
    between: Between, keystore: Keystore, tiny_images: Images, stage: str
) -> None:
    """Wherever it was: what had become a job is canceled, and the client can be used again."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(handler: Any, middle: Any) -> bool:
        if handler.path.endswith(stage) and not reached.is_set():
            reached.set()
            go_on.wait(300)
        return False

    async def ask(middle: Any) -> None:
        async with AsyncClient(middle.url, model="tiny", keystore=keystore, allow_toy_parameters=True) as client:
            task = asyncio.create_task(client.predict(tiny_images))
            await asyncio.to_thread(reached.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            if stage == "/events":
                (ended,) = [path for method, path in middle.seen if method == "DELETE"]
                job = await client.job(ended.rpartition("/")[2])
                assert (await job.wait()).state in ("canceled", "completed")
            assert (await client.predict(tiny_images[:1])).shape == (1, 3)

    with between(hold) as middle:
        asyncio.run(ask(middle))


def test_an_async_job_is_like_a_sync_one(server: ServerProcess, keystore: Keystore, tiny_images: Images) -> None:
    async def ask() -> NDArray[np.float64]:
        async with AsyncClient(server.url, keystore=keystore, allow_toy_parameters=True) as client:
            job = await client.submit(tiny_images)
            assert (await job.refresh()).id == job.id
            assert (await job.wait()).state == "completed"
            assert job.profile == await client.profile()
            logits = await (await client.job(job.id)).result()
            await job.cancel()
            with pytest.raises(errors.ExpiredError):
                await job.result()
            return logits

    assert asyncio.run(ask()).shape == (4, 3)


# Tenants


@pytest.fixture(scope="module")
def closed(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server that asks for API keys, and its storage."""
    storage = tmp_path_factory.mktemp("closed")
    with running_server(models=zoo, allow_toy_parameters=True, storage=storage, open=False) as process:
        yield process, storage


def test_without_a_key_nothing_is_told(closed: tuple[ServerProcess, Path]) -> None:
    for api_key in (None, "csk_00000000_" + "x" * 43, "nonsense"):
        with (
            Client(closed[0].url, model="tiny", api_key=api_key, allow_toy_parameters=True) as client,
            pytest.raises(errors.UnauthorizedError),
        ):
            client.profile()


def test_tenants_do_not_see_each_other(
    closed: tuple[ServerProcess, Path], keystore: Keystore, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, storage = closed
    key_a, key_b = tenant(storage, "a"), tenant(storage, "b")
    assert re.fullmatch(r"csk_[0-9a-f]{8}_[\w-]{43}", key_a)
    monkeypatch.setenv("CIPHERSHIFT_API_KEY", key_a)
    with (
        Client(server.url, keystore=keystore, allow_toy_parameters=True) as a,
        Client(server.url, keystore=keystore, api_key=key_b, allow_toy_parameters=True) as b,
    ):
        job = a.submit(tiny_images[:1])
        assert job.result().shape == (1, 3)
        with pytest.raises(errors.UnknownJobError):
            b.job(job.id)
        assert b.jobs() == []
        assert b.predict(tiny_images[:1]).shape == (1, 3)  # the same keys, uploaded once more


def test_a_key_without_the_scope_is_said_so(
    closed: tuple[ServerProcess, Path], keystore: Keystore, tiny_images: Images
) -> None:
    server, storage = closed
    api_key = tenant(storage, "narrow", Scope.INFER)
    with Client(server.url, keystore=keystore, api_key=api_key, allow_toy_parameters=True) as client:
        assert client.profile().model == "tiny"
        with pytest.raises(errors.ForbiddenError):
            client.prepare()


def test_a_used_up_quota_is_said_at_once(
    closed: tuple[ServerProcess, Path], keystore: Keystore, tiny_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = SyncTransport._take

    def never_sleeping(self: SyncTransport, step: Step) -> httpx.Response | None:
        assert not isinstance(step, Sleep)
        return take(self, step)

    server, storage = closed
    api_key = tenant(storage, "small", queries_per_day=2)
    with Client(server.url, keystore=keystore, api_key=api_key, allow_toy_parameters=True) as client:
        client.predict(tiny_images[:2])
        monkeypatch.setattr(SyncTransport, "_take", never_sleeping)
        with pytest.raises(errors.QuotaExceededError, match="2 of 2"):
            client.predict(tiny_images[:1])
