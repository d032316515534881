"""The stores over one database and one folder, on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ciphershift.he_layers.crypto import params
from ciphershift.server.settings import Settings
from ciphershift.server.store.blobs import Blobs
from ciphershift.server.store.database import Database, Job
from ciphershift.server.store.jobs import JobRequest, JobStore
from ciphershift.server.store.keys import KeyStore
from ciphershift.server.store.tenants import TenantStore

TOY = params.get("TOY_N128")


class State:
    """The stores over one database and one folder; `again` opens them anew, as a restart does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.database.migrate()
        self.database.check()
        self.blobs = Blobs(settings)
        self.tenants = TenantStore(self.database)
        self.jobs = JobStore(self.database, self.blobs, settings)
        self.keys = KeyStore(self.database, self.blobs, settings, lambda: {TOY.id: 1 << 20})
        self.tenant = self.tenants.open().tenant_id
        self.jobs.beat("runner", 1)

    def again(self, **changes: Any) -> "State":
        self.database.close()
        return State(self.settings.model_copy(update=changes))

    def request(self, **changes: Any) -> JobRequest:
        request = JobRequest(
            tenant_id=self.tenant,
            model="tiny",
            model_version="1",
            model_digest="d",
            lookups=10,
            key_id="ab" * 32,
            request_id=None,
            images=2,
            tensor=b"images",
            body_sha256="0",
            idempotency_key=None,
        )
        return replace(request, **changes)

    def submit(self, **changes: Any) -> Job:
        return self.jobs.submit(self.request(**changes))

    def running(self, **changes: Any) -> Job:
        job = self.submit(**changes)
        claimed = self.jobs.claim("runner")
        assert claimed is not None
        assert claimed.id == job.id
        return claimed

    def state_of(self, job: Job) -> str:
        return self.jobs.get(job.tenant_id, job.id).state


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    database = request.getfixturevalue("postgres")() if request.param == "postgresql" else ""
    state = State(Settings(database=database, storage=str(tmp_path), lease_seconds=5))
    yield state
    state.database.close()
