"""Settings of the service, read once from the environment (prefix CIPHERSHIFT_)."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """What an operator may choose; every field is also an environment variable, CIPHERSHIFT_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="CIPHERSHIFT_", frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    models: Path = Field(ZOO, description="folder of Programs, one sub-folder per model")
    storage: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("ciphershift") / "server",
        description="folder in which uploaded evaluation keys rest",
    )
    storage_bytes: int = Field(10 << 30, gt=0, description="bytes of keys kept on disk; the least recently used go")
    workers: int = Field(1, ge=1, description="worker processes, each of which computes one request at a time")
    threads: int = Field(default_factory=_available_cpus, ge=1, description="kernel threads of one worker")
    worker_key_bytes: int = Field(512 << 20, gt=0, description="bytes of expanded keys that one worker keeps")
    queue_depth: int = Field(16, ge=0, description="requests that may wait for a worker before others get `busy`")
    deadline_seconds: float = Field(600.0, gt=0, description="time from a request's arrival to its answer")
    max_batch: int = Field(16, ge=1, description="images in one request")
    allow_toy_parameters: bool = Field(False, description="serve insecure TOY parameter sets; for tests alone")
