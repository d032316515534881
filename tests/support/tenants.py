"""Tenants of a server that asks for API keys."""

from pathlib import Path

from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore


def tenant(storage: Path, name: str, *scopes: Scope, queries_per_day: int | None = None) -> str:
    """Makes a tenant and returns an API key of its own."""
    database = Database.open(Settings(storage=str(storage)).database_url)
    try:
        store = TenantStore(database)
        store.create(name, queries_per_day=queries_per_day, key_bytes=None)
        return store.make_key(name, scopes or (Scope.INFER, Scope.KEYS), seconds=None)
    finally:
        database.close()
