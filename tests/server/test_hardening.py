"""What strangers tried against the service: each of it, and its kind, is answered by a rule. In one process, without workers."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from ciphershift.errors import BusyError
from ciphershift.protocol import tensors
from ciphershift.server.api import problems
from ciphershift.server.api.limits import TenantLimits
from ciphershift.server.app import create_app
from ciphershift.server.notifier import Notifier
from ciphershift.server.settings import Settings
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


def series(http: InProcess, **headers: str) -> set[str]:
    text = http.get("/metrics", headers=headers).text
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line.startswith("ciphershift_requests_total")}


def test_no_request_makes_a_new_series(open_http: InProcess) -> None:
    for number in range(20):
        assert open_http.request(f"BREW{number}", "/v2").status_code == 501
        open_http.get(f"/no/such/path/{number}")
    known = series(open_http)
    assert {line for line in known if "none" in line} == {
        'ciphershift_requests_total{method="GET",route="none",status="404"}'
    }
    assert not any("BREW" in line for line in known)


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
    with InProcess(make_app(models=models)) as http:
        told = {
            scope: {entry["name"]: entry for entry in http.post("/v2/repository/index", headers=key(scope)).json()}
            for scope in (Scope.INFER, Scope.ADMIN)
        }
        assert http.get("/v2/models/tiny", headers=key()).status_code == 200
    assert str(models) not in json.dumps(told[Scope.INFER])
    assert told[Scope.INFER]["broken"]["reason"]
    assert str(models) in told[Scope.ADMIN]["broken"]["reason"]


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


def test_a_full_disk_is_named() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    def fill() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    with InProcess(app) as http:
        answer = http.get("/")
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


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


def test_an_event_stream_ends_when_its_key_is_revoked(
    make_app: Callable[..., FastAPI],
    key: Callable[..., dict[str, str]],
    bundle: tuple[str, bytes],
    make_body: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ciphershift.server.api.routes.jobs.RECHECK_SECONDS", 0.0)
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

    def broken() -> list[str]:
        nonlocal rounds
        rounds += 1
        raise RecursionError

    monkeypatch.setattr(service.jobs, "sweep", broken)
    monkeypatch.setattr("ciphershift.server.service.PAUSES", {"sweep": 0.01, "watch": 0.01, "orphans": 0.01})
    monkeypatch.setattr("ciphershift.server.service.LATE_SECONDS", 0.05)
    monkeypatch.setattr("ciphershift.server.service.CACHE_SECONDS", 0.0)
    with InProcess(app) as http:
        while rounds < 3:
            http.get("/v2/health/live")
        answer = http.get("/v2/health/ready")
    assert answer.status_code == 503
    assert "sweep" in answer.json()["detail"]
