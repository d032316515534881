"""What strangers tried against the service: each of it, and its kind, is answered by a rule. In one process, without workers."""

import asyncio
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from ciphershift.errors import BusyError
from ciphershift.he_layers.program import Program
from ciphershift.protocol import tensors
from ciphershift.server.api.limits import TenantLimits
from ciphershift.server.app import create_app
from ciphershift.server.notifier import Notifier
from ciphershift.server.settings import Settings
from ciphershift.server.store.blobs import Spool
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore
from tests.support.command_line import run
from tests.support.in_process import InProcess


@pytest.fixture
def make_app(zoo: Path, tmp_path: Path) -> Callable[..., FastAPI]:
    def make(**settings: Any) -> FastAPI:
        given = {
            "models": zoo,
            "allow_toy_parameters": True,
            "storage": str(tmp_path),
            "engine": "queue://",
            **settings,
        }
        return create_app(Settings(**given))

    return make


@pytest.fixture
def open_http(make_app: Callable[..., FastAPI]) -> Iterator[InProcess]:
    with InProcess(make_app(open=True)) as http:
        yield http


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes an API key; returns its header."""

    def make(*scopes: Scope, tenant: str = "clinic") -> dict[str, str]:
        database = Database.open(Settings(storage=str(tmp_path)).database_url)
        tenants = TenantStore(database)
        if not any(known.name == tenant for known, _ in tenants.all()):
            tenants.create(tenant)
        text = tenants.make_key(tenant, scopes or (Scope.INFER, Scope.KEYS))
        database.close()
        return {"Authorization": f"Bearer {text}"}

    return make


def series(http: InProcess) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Every series, by its name and labels."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {(sample.name, frozenset(sample.labels.items())) for family in families for sample in family.samples}


def test_no_request_makes_a_new_series(
    open_http: InProcess, make_body: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of request is made once, then with twenty other methods, paths, models, keys, versions and headers."""
    monkeypatch.setattr("ciphershift.server.service.CACHE_SECONDS", -1.0)
    body = make_body()

    def ask(name: str, digits: str) -> None:
        headers = body.headers | {"X-Request-Id": name, "User-Agent": name, "Idempotency-Key": name}
        assert open_http.request(f"BREW{digits}", "/v2").status_code == 501
        for method, path in (
            ("GET", f"/no/such/path/{name}"),
            ("GET", f"/v2/models/{name}"),
            ("GET", f"/v2/models/tiny/versions/{digits}"),
            ("GET", f"/v2/jobs/{digits * 8}"),
            ("PUT", f"/v2/keys/{digits * 16}"),
            ("POST", f"/v2/models/{name}/infer?{name}"),
            ("POST", "/v2/models/tiny/infer"),
        ):
            status = open_http.request(method, path, content=body.content, headers=headers).status_code
            assert 400 <= status < 500

    ask("first", "0123")
    series(open_http)  # itself makes one
    known = series(open_http)
    for number in range(20):
        ask(f"other-{number}", f"{number:04}")
    assert series(open_http) == known
    assert not any("BREW" in value for _, labels in known for _, value in labels)


def test_metrics_can_have_a_token_of_their_own(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(metrics_token="geheim")
    with InProcess(app) as http:
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": "geheim"}):
            assert http.get("/metrics", headers=wrong).status_code == 401
        assert "ciphershift_queue_depth" in http.get("/metrics", headers={"Authorization": "Bearer geheim"}).text
    assert "geheim" not in str(app.state.service.settings.printable())


def test_answers_to_monitoring_are_made_once_a_second(open_http: InProcess) -> None:
    texts = {open_http.get("/metrics").content for _ in range(2)}
    assert len(texts) == 1, "the second is the first, though one request more was counted"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "rebound.example:8000"},
        {"Host": "["},
        {"Origin": "http://["},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_an_open_server_does_not_obey_web_pages(open_http: InProcess, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/v2/repository/models/tiny/unload"),
        ("GET", "/v2/models"),
        ("DELETE", "/v2/keys/x"),
    ):
        answer = open_http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8000"},
        {"Host": "[::1]:8000"},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_an_open_server_serves_its_own_user(open_http: InProcess, headers: dict[str, str]) -> None:
    assert open_http.get("/v2/models", headers=headers).status_code == 200


def test_allowed_hosts_and_origins_are_let_in(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(open=True, allowed_hosts="lab.example", allowed_origins="https://page.example")
    with InProcess(app) as http:
        assert http.get("/v2/models", headers={"Host": "lab.example"}).status_code == 200
        assert http.get("/v2/models", headers={"Origin": "https://page.example"}).status_code == 200
        assert http.get("/v2/models", headers={"Origin": "https://other.example"}).status_code == 403


def test_nobody_is_an_administrator_of_an_open_server(open_http: InProcess) -> None:
    answer = open_http.post("/v2/repository/models/tiny/unload")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert open_http.get("/v2/models/tiny").status_code == 200


def test_why_a_model_is_not_served_is_for_administrators(
    make_app: Callable[..., FastAPI], key: Callable[..., dict[str, str]], zoo: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    (models / "broken").mkdir(parents=True)
    (models / "broken" / "program.json").write_text("[" * 100_000)
    (models / "tiny").symlink_to(zoo / "tiny")
    with capture_logs() as logs:
        app = make_app(models=models)
    assert [
        (entry["model"], str(models) in entry["reason"]) for entry in logs if entry["event"] == "model_refused"
    ] == [("broken", True)]
    with InProcess(app) as http:
        told = {
            scope: {entry["name"]: entry for entry in http.post("/v2/repository/index", headers=key(scope)).json()}
            for scope in (Scope.INFER, Scope.ADMIN)
        }
        assert http.get("/v2/models/tiny", headers=key()).status_code == 200
    assert str(models) not in json.dumps(told[Scope.INFER])
    assert told[Scope.INFER]["broken"]["reason"]
    assert str(models) in told[Scope.ADMIN]["broken"]["reason"]


def test_a_model_whose_profile_cannot_be_made_is_not_served(
    make_app: Callable[..., FastAPI], key: Callable[..., dict[str, str]], zoo: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(zoo / "tiny", models / "tiny")
    program = Program.load(zoo / "tiny")
    replace(program, name="other").save(models / "other")
    (models / "other" / "card.json").write_text('{"accuracy_simulated": "x"}')
    with InProcess(make_app(models=models)) as http:
        admin = key(Scope.ADMIN)
        index = {entry["name"]: entry for entry in http.post("/v2/repository/index", headers=admin).json()}
        assert (index["tiny"]["state"], index["other"]["state"]) == ("READY", "UNAVAILABLE")
        assert "cannot be read (ValidationError)" in index["other"]["reason"]
        assert told(http.get("/v2/models/other/profile", headers=key())) == (404, "unknown_model")
        assert http.get("/v2/models/tiny/profile", headers=key()).status_code == 200


def test_what_machines_ask_for_is_made_once(make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    app, made = make_app(open=True), Counter[str]()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted() -> Any:
            made[name] += 1
            return original()

        monkeypatch.setattr(owner, name, counted)

    count(app, "openapi")
    count(app.state.service.blobs, "check")
    monkeypatch.setattr("ciphershift.server.service.CACHE_SECONDS", 1000.0)
    with InProcess(app) as http:
        for path in ("/openapi.json", "/v2/health/ready"):
            assert len({http.get(path).content for _ in range(5)}) == 1
    assert made == {"openapi": 1, "check": 1}


@pytest.mark.parametrize("bad", ["a\0b", "ä", " ", "x" * 65, ""])
def test_identifiers_are_printable(open_http: InProcess, make_body: Callable[..., Any], bad: str) -> None:
    body = make_body()
    if bad.strip():  # an id may be left out, or be a space
        text, tensor = tensors.split_body(body.headers[tensors.HEADER_LENGTH], body.content)
        content, headers = tensors.join_body(json.loads(text) | {"id": bad}, tensor)
        answer = open_http.post("/v2/models/tiny/jobs", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    sent: dict[str, str | bytes] = {**body.headers, "Idempotency-Key": bad.encode("utf-8", "surrogateescape")}
    answer = open_http.post("/v2/models/tiny/jobs", content=body.content, headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    for path in (f"/v2/jobs/{'%00'}", "/v2/jobs/ZZ", "/v2/models/%00", "/v2/models/a%2fb"):
        assert open_http.get(path).status_code in (400, 404)


def test_versions_are_paths_as_the_metadata_promises(open_http: InProcess) -> None:
    (version,) = open_http.get("/v2/models/tiny").json()["versions"]
    assert open_http.get(f"/v2/models/tiny/versions/{version}").json() == open_http.get("/v2/models/tiny").json()
    assert open_http.get(f"/v2/models/tiny/versions/{version}/profile").status_code == 200
    assert open_http.get(f"/v2/models/tiny/versions/{version}/ready").json()["code"] == "not_ready"
    assert open_http.post(f"/v2/models/tiny/versions/{version}/infer").json()["code"] == "malformed"
    other = open_http.get("/v2/models/tiny/versions/77")
    assert (other.status_code, other.json()["code"]) == (404, "unknown_model")
    assert "version 1" in other.json()["detail"]


def test_health_answers_head_and_problems_carry_the_member_that_triton_clients_read(open_http: InProcess) -> None:
    assert open_http.head("/v2/health/live").status_code == 200
    assert open_http.head("/v2/health/ready").status_code == 503
    problem = open_http.get("/v2/models/none").json()
    assert problem["error"] == problem["detail"]


def test_the_documentation_page_runs_its_own_scripts_alone(open_http: InProcess) -> None:
    page = open_http.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    assert "'sha256-" in policy
    assert "script-src https://cdn.jsdelivr.net" in policy
    assert "frame-ancestors 'none'" in policy
    assert open_http.get("/openapi.json").json()["info"]["title"] == "ciphershift"
    loaded = re.findall(
        r'="https://cdn\.jsdelivr\.net/npm/swagger-ui-dist@\d+\.\d+\.\d+/[^"]*"( integrity="sha384-)?', page.text
    )
    assert len(loaded) == page.text.count("cdn.jsdelivr.net") == 2
    assert all(loaded), "an exact version, and its bytes"


def test_scripts_of_others_do_not_run_where_a_page_keeps_keys(make_app: Callable[..., FastAPI]) -> None:
    with InProcess(make_app(open=True, page=True)) as http:
        assert http.get("/page/").status_code == 200
        assert http.get("/docs").status_code == 404
        assert http.get("/openapi.json").status_code == 200


def test_an_upload_that_its_client_breaks_off_is_no_fault_of_the_server(
    make_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(open=True)
    scope = {
        "type": "http",
        "method": "PUT",
        "path": f"/v2/keys/{'0' * 64}",
        "raw_path": b"",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"1000")],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 499
    counted = app.state.service.metrics.requests.labels("PUT", "/v2/keys/{key_id}", 499)
    assert counted._value.get() == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem."""
    return answer.status_code, answer.json()["code"]


def test_a_full_disk_is_named_and_nothing_is_kept(
    make_app: Callable[..., FastAPI],
    bundle: tuple[str, bytes],
    make_body: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, body, keys = make_app(open=True), make_body(), f"/v2/keys/{bundle[0]}"
    blobs = app.state.service.blobs
    spool = blobs.spool

    @contextmanager
    def full() -> Iterator[Spool]:
        with spool() as given, Path("/dev/full").open("wb", buffering=0) as file:
            yield Spool(file, given.path)

    def stored() -> list[Path]:
        return [
            path for folder in ("keys", "jobs", "spool") for path in tmp_path.glob(f"{folder}/**/*") if path.is_file()
        ]

    with InProcess(app) as http:
        with monkeypatch.context() as patch:
            patch.setattr(blobs, "spool", full)
            assert told(http.put(keys, content=bundle[1])) == (507, "storage_full")
        assert told(http.get(keys)) == (404, "unknown_key")
        assert stored() == []
        assert http.put(keys, content=bundle[1]).status_code == 201
        with monkeypatch.context() as patch:
            patch.setattr(blobs, "spool", full)
            refused = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers)
            assert told(refused) == (507, "storage_full")
        assert http.get("/v2/jobs").json() == {"jobs": []}
        assert len(stored()) == 1, "the bundle alone"
        assert http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers).status_code == 202


def test_a_full_database_is_named_and_leaves_no_blob(
    make_app: Callable[..., FastAPI], bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path: Path
) -> None:
    """SQLite may not take another page; jobs are accepted as long as its pages have room."""
    app = make_app(open=True)
    engine = app.state.service.database._engine
    with InProcess(app) as http:
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
        engine.dispose()

        def submit() -> httpx.Response:
            body = make_body()
            return http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers)

        accepted = 0
        while (answer := submit()).status_code == 202:
            accepted += 1
        assert told(answer) == (507, "storage_full")
        assert len(http.get("/v2/jobs").json()["jobs"]) == accepted
        assert len(list(tmp_path.glob("jobs/*"))) == accepted


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ('could not extend file "base/5/1": No space left on device', (507, "storage_full")),
        ("server closed the connection unexpectedly", (503, "not_ready")),
    ],
)
def test_what_postgresql_says_is_told_apart(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch, reason: str, problem: tuple[int, str]
) -> None:
    app = make_app(open=True)

    def fail(*_: object) -> None:
        raise OperationalError("INSERT INTO jobs", {}, Exception(reason))

    monkeypatch.setattr(app.state.service.jobs, "newest", fail)
    with InProcess(app) as http:
        assert told(http.get("/v2/jobs")) == problem


def test_requests_of_a_tenant_are_limited_by_the_second() -> None:
    now = 100.0
    limits = TenantLimits(lambda: now)
    for _ in range(5):
        limits.take("a", 5)
    with pytest.raises(BusyError, match="5 requests in a second"):
        limits.take("a", 5)
    limits.take("b", 5)
    now += 0.2
    limits.take("a", 5)
    with pytest.raises(BusyError):
        limits.take("a", 5)


def test_the_rate_of_a_tenant_is_its_own(
    make_app: Callable[..., FastAPI], key: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    one, other = key(tenant="one"), key(tenant="other")
    environment = {"CIPHERSHIFT_STORAGE": str(tmp_path)}
    assert run("tenants", "set", "one", "--requests-per-second", "0.1", environment=environment).returncode == 0
    with InProcess(make_app()) as http:
        assert http.get("/v2/jobs", headers=one).status_code == 200
        refused = http.get("/v2/jobs", headers=one)
        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert http.get("/v2/jobs", headers=other).status_code == 200


def test_event_streams_of_a_tenant_are_limited() -> None:
    limits = TenantLimits()
    with limits.stream("a", 2), limits.stream("a", 2), limits.stream("b", 2):
        third = limits.stream("a", 2)
        with pytest.raises(BusyError, match="2 event streams"):
            third.__enter__()
    with limits.stream("a", 2):
        pass


def test_a_tenant_opens_no_more_event_streams_than_the_setting_says(
    make_app: Callable[..., FastAPI], bundle: tuple[str, bytes], make_body: Callable[..., Any]
) -> None:
    with InProcess(make_app(open=True, streams_per_tenant=1)) as http:
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
        body = make_body()
        job = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers).json()["id"]

        async def two_at_once() -> list[httpx.Response]:
            asked = {asyncio.create_task(http.send("GET", f"/v2/jobs/{job}/events")) for _ in range(2)}
            first, others = await asyncio.wait(asked, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            await http.send("DELETE", f"/v2/jobs/{job}")
            return [await task for task in (*first, *others)]

        refused, followed = http.run(two_at_once())
        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert "1 event streams are open" in refused.json()["detail"]
        assert "event: canceled" in followed.text
        assert "event: canceled" in http.get(f"/v2/jobs/{job}/events").text, "the first has ended"


@pytest.mark.parametrize("busy", [False, True], ids=["a job that waits", "a job that changes all the time"])
def test_an_event_stream_ends_when_its_key_is_revoked(
    make_app: Callable[..., FastAPI],
    key: Callable[..., dict[str, str]],
    bundle: tuple[str, bytes],
    make_body: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    busy: bool,
) -> None:
    monkeypatch.setattr("ciphershift.server.api.routes.jobs.RECHECK_SECONDS", 0.0)
    rounds: list[float] = []

    async def always_or_never(_: asyncio.Event, seconds: float) -> bool:
        rounds.append(seconds)
        assert len(rounds) < 100, "the stream goes on"
        return busy

    monkeypatch.setattr("ciphershift.server.api.routes.jobs.notified", always_or_never)
    app = make_app()
    service, headers, body = app.state.service, key(), make_body()
    with InProcess(app) as http:
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1], headers=headers)
        job = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers | headers).json()["id"]
        asked: list[str | None] = []
        caller = service.caller

        def revoked_at_the_second_look(authorization: str | None) -> Any:
            asked.append(authorization)
            if len(asked) == 2:
                service.tenants.revoke(headers["Authorization"].split("_")[1])
            return caller(authorization)

        monkeypatch.setattr(service, "caller", revoked_at_the_second_look)
        stream = http.get(f"/v2/jobs/{job}/events", headers=headers)  # it ends, though the job waits for ever
        assert stream.text.count("event: progress") == 1
        assert "event: completed" not in stream.text
        assert http.get(f"/v2/jobs/{job}", headers=headers).status_code == 401


def test_a_job_that_no_runner_ends_is_counted_once(
    make_app: Callable[..., FastAPI], bundle: tuple[str, bytes], make_body: Callable[..., Any]
) -> None:
    app = make_app(open=True, deadline_seconds=0.01)
    service = app.state.service
    counted = service.metrics.jobs.labels("tiny", "failed")._value
    with InProcess(app) as http:
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
        body = make_body()
        job_id = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers).json()["id"]
        for _ in range(1000):  # the service sweeps once a second, too
            http.run(service._sweep())
            if http.get(f"/v2/jobs/{job_id}").json()["state"] == "failed" and counted.get():
                break
            time.sleep(0.01)
        http.run(service._sweep())
        assert counted.get() == 1


def test_a_job_that_is_canceled_while_it_waits_is_counted_once(
    make_app: Callable[..., FastAPI], bundle: tuple[str, bytes], make_body: Callable[..., Any]
) -> None:
    app = make_app(open=True, engine="queue://")
    counted = app.state.service.metrics.jobs.labels("tiny", "canceled")._value
    with InProcess(app) as http:
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
        body = make_body()
        job = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers).json()
        for _ in range(2):
            assert http.request("DELETE", f"/v2/jobs/{job['id']}").json()["state"] == "canceled"
            assert counted.get() == 1


def test_all_who_follow_a_job_share_one_read(
    make_app: Callable[..., FastAPI], bundle: tuple[str, bytes], make_body: Callable[..., Any]
) -> None:
    app = make_app(open=True)
    with InProcess(app) as http:
        http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])
        body = make_body()
        job_id = http.post("/v2/models/tiny/jobs", content=body.content, headers=body.headers).json()["id"]
        service = app.state.service
        job = service.jobs.get(service.caller(None).tenant_id, job_id)
        notifier = Notifier()

        async def follow() -> None:
            changed = notifier.subscribe(job_id)
            first, second = await asyncio.gather(service.feed.read(changed, job), service.feed.read(changed, job))
            assert first is second
            assert json.loads(first.json)["id"] == job_id
            notifier.notify(job_id)
            assert await service.feed.read(notifier.subscribe(job_id), job) is not first

        http.run(follow())


def test_a_background_task_that_fails_goes_on_and_makes_the_server_not_ready(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(open=True)
    service = app.state.service
    rounds = 0

    def broken() -> list[Any]:
        nonlocal rounds
        rounds += 1
        raise RecursionError

    monkeypatch.setattr(service.jobs, "sweep", broken)
    monkeypatch.setattr("ciphershift.server.service.PAUSES", {"sweep": 0.01, "watch": 0.01, "orphans": 0.01})
    monkeypatch.setattr("ciphershift.server.service.LATE_SECONDS", 0.05)
    monkeypatch.setattr("ciphershift.server.service.CACHE_SECONDS", 0.0)
    with capture_logs() as lines, InProcess(app) as http:
        while rounds < 3:
            http.get("/v2/health/live")
        time.sleep(0.1)  # three rounds may take less than what counts as late
        answer = http.get("/v2/health/ready")
    assert answer.status_code == 503
    assert "sweep" in answer.json()["detail"]
    failed = [line for line in lines if line["event"] == "background_task_failed"]
    assert len(failed) >= 2
    assert {(line["task"], line["log_level"], line["exc_info"]) for line in failed} == {("sweep", "error", True)}
