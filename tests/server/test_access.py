"""Who may do what, over HTTP: API keys, scopes, quotas, and tenants that cannot see each other."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.errors import ConfigurationError
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore
from tests.support.command_line import Done, run


def command(storage: Path, *arguments: str) -> Done:
    return run(*arguments, environment={"CIPHERSHIFT_STORAGE": str(storage)})


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def closed(zoo: Path, storage: Path) -> Iterator[ServerProcess]:
    with running_server(models=zoo, allow_toy_parameters=True, storage=storage, open=False) as server:
        yield server


@pytest.fixture(scope="module")
def make_client(closed: ServerProcess, storage: Path) -> Iterator[Callable[..., httpx.Client]]:
    clients = []

    database = Database(Settings(storage=str(storage)).database_url)
    tenants = TenantStore(database)

    def make(tenant: str, scopes: tuple[str, ...] = ("infer", "keys"), **limits: Any) -> httpx.Client:
        with suppress(ConfigurationError):  # there already
            tenants.create(tenant, **limits)
        headers = {"Authorization": f"Bearer {tenants.make_key(tenant, [Scope(scope) for scope in scopes])}"}
        client = httpx.Client(base_url=closed.url, headers=headers, timeout=60)
        clients.append(client)
        return client

    yield make
    database.close()
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models"),
        ("GET", "/v2/models/tiny"),
        ("GET", "/v2/models/none"),
        ("GET", "/v2/models/tiny/profile"),
        ("POST", "/v2/models/tiny/infer"),
        ("POST", "/v2/models/tiny/jobs"),
        ("GET", "/v2/jobs"),
        ("GET", f"/v2/jobs/{'0' * 32}"),
        ("DELETE", f"/v2/jobs/{'0' * 32}"),
        ("PUT", f"/v2/keys/{'0' * 64}"),
        ("HEAD", f"/v2/keys/{'0' * 64}"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/tiny/unload"),
    ],
)
@pytest.mark.parametrize("authorization", [None, "Bearer csk_00000000_" + "A" * 43, "Basic x"])
def test_nothing_is_answered_without_a_valid_key(
    closed: ServerProcess, method: str, path: str, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = httpx.request(method, closed.url + path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    if method != "HEAD":
        assert answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/metrics", "/docs", "/openapi.json"])
def test_what_machines_ask_needs_no_key(closed: ServerProcess, path: str) -> None:
    assert httpx.get(closed.url + path).status_code == 200


def test_a_key_does_what_its_scopes_say(make_client: Callable[..., httpx.Client], bundle: tuple[str, bytes]) -> None:
    infer, keys, admin = (make_client("scoped", scopes=(scope,)) for scope in ("infer", "keys", "admin"))
    calls = [
        (infer, lambda http: http.get("/v2/models")),
        (keys, lambda http: http.put(f"/v2/keys/{bundle[0]}", content=bundle[1])),
        (admin, lambda http: http.post("/v2/repository/models/tiny/load")),
    ]
    for owner, call in calls:
        for http in (infer, keys, admin):
            answer = call(http)
            if http in (owner, admin):
                assert answer.is_success
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_key_from_the_command_line_works_until_it_is_revoked(closed: ServerProcess, storage: Path) -> None:
    assert command(storage, "tenants", "create", "leaver").returncode == 0
    made = command(storage, "tenants", "key", "leaver").stdout.strip()
    assert re.fullmatch(r"csk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", made)
    http = httpx.Client(base_url=closed.url, headers={"Authorization": f"Bearer {made}"})
    assert http.get("/v2/models").status_code == 200
    key_id = made.split("_")[1]
    assert command(storage, "tenants", "revoke", key_id).returncode == 0
    assert http.get("/v2/models").status_code == 401
    listed = command(storage, "tenants", "list").stdout
    assert "leaver" in listed
    assert key_id in listed
    assert made.split("_", 2)[2] not in listed
    http.close()


def test_tenants_cannot_see_each_other(
    make_client: Callable[..., httpx.Client], bundle: tuple[str, bytes], make_body: Callable[..., Any]
) -> None:
    mine, theirs = make_client("mine"), make_client("theirs")
    key_id, data = bundle
    assert mine.put(f"/v2/keys/{key_id}", content=data).status_code == 201
    body = make_body()
    answer = mine.post("/v2/models/tiny/infer", content=body.content, headers=body.headers)
    assert answer.status_code == 200
    result = answer.headers["Content-Location"]
    job = result.removesuffix("/result")

    def error(response: httpx.Response) -> tuple[int, str]:
        return response.status_code, response.json()["detail"]

    for method, path in [("GET", job), ("GET", result), ("GET", f"{job}/events"), ("DELETE", job)]:
        missing = path.replace(job, f"/v2/jobs/{'0' * 32}")
        status, detail = error(theirs.request(method, path))
        assert (status, detail.replace(job.removeprefix("/v2/jobs/"), "0" * 32)) == error(
            theirs.request(method, missing)
        )
        assert status == 404
    assert theirs.get("/v2/jobs").json()["jobs"] == []
    for method in ("GET", "DELETE"):
        assert theirs.request(method, f"/v2/keys/{key_id}").json()["code"] == "unknown_key"
    stolen = theirs.post("/v2/models/tiny/infer", content=body.content, headers=body.headers)
    assert (stolen.status_code, stolen.json()["code"]) == (404, "unknown_key")
    assert mine.get(result).status_code == 200
    assert mine.get(f"/v2/keys/{key_id}").status_code == 200


def test_a_tenant_has_its_own_quota(
    make_client: Callable[..., httpx.Client], bundle: tuple[str, bytes], make_body: Callable[..., Any]
) -> None:
    http = make_client("small", queries_per_day=2, key_bytes=len(bundle[1]))
    assert http.put(f"/v2/keys/{bundle[0]}", content=bundle[1]).status_code == 201
    statuses = []
    for _ in range(3):
        body = make_body()
        answer = http.post("/v2/models/tiny/infer", content=body.content, headers=body.headers)
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 429]
    assert answer.json()["code"] == "quota_exceeded"
    assert 86000 < int(answer.headers["Retry-After"]) <= 86400


@pytest.mark.parametrize(
    "arguments",
    [("create", "clinic"), ("create", "../x"), ("key", "nobody"), ("revoke", "00000000")],
    ids=["taken", "no name", "nobody's key", "unknown key"],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    database = Database.open(Settings(storage=str(tmp_path)).database_url)
    TenantStore(database).create("clinic")
    database.close()
    done = command(tmp_path, "tenants", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("configuration: ")
