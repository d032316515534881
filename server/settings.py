"""Settings of the service, read once from the environment (prefix CIPHERSHIFT_); unsafe ones are refused before anything starts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import parse_qs, urlsplit

import platformdirs
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ciphershift.errors import ConfigurationError
from ciphershift.he_layers.crypto.params import SETS, STAND_INS

Scheme = Literal["local", "ray", "queue"]
ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"


def available_cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineUrl:
    """What an engine's URL says.

    Attributes:
        scheme: ``local``, ``ray``, or ``queue`` for none in this process.
        address: host and port of the Ray cluster; empty to start one here.
        workers: jobs that are computed at once (local), or actors that share each job (ray).
        threads: kernel threads of one worker.
    """

    scheme: Scheme
    address: str
    workers: int
    threads: int

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads ``local://?workers=1&threads=2``, ``ray://host:port?workers=4`` or ``queue://``.

        Raises:
            ValueError: the URL names something else, or an impossible number.
        """
        parts = urlsplit(url)
        scheme = next((known for known in get_args(Scheme) if known == parts.scheme), None)
        if scheme is None:
            raise ValueError(f"engine {url!r} is none of local://, ray:// and queue://")
        options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if unknown := options.keys() - {"workers", "threads"}:
            raise ValueError(f"engine {url!r} has unknown options {sorted(unknown)}; known are workers and threads")
        if not all(value.isdecimal() and int(value) >= 1 for value in options.values()):
            raise ValueError(f"engine {url!r}: workers and threads are numbers from 1 on")
        threads = 1 if scheme == "ray" else available_cpus()
        return cls(
            scheme=scheme,
            address=parts.netloc,
            workers=int(options.get("workers", 1)),
            threads=int(options.get("threads", threads)),
        )


class Settings(BaseSettings):
    """What an operator may choose; every field is also an environment variable, CIPHERSHIFT_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="CIPHERSHIFT_", env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    open: bool = Field(
        False, description="no API keys: everybody is the one tenant `local`; for a demo on this machine"
    )
    open_to_network: bool = Field(False, description="let `open` hold for other machines, too")
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate chain: serve HTTPS")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    models: Path = Field(ZOO, description="folder of Programs, one sub-folder per model")
    parameter_sets: str = Field(
        ",".join(STAND_INS),
        description="sets that networks are evaluated under in place of their own, the first that has no more noise; `own` for none",
    )
    storage: str = Field(
        default_factory=lambda: str(platformdirs.user_data_path("ciphershift") / "server"),
        description="where ciphertexts and evaluation keys rest: a folder, or a URL that fsspec knows (s3://bucket/path)",
    )
    cache: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("ciphershift") / "server",
        description="folder for local copies of evaluation keys when storage is not a folder",
    )
    database: str = Field(
        "", description="SQLAlchemy URL of tenants, keys and jobs; empty takes SQLite in the folder `storage`"
    )
    storage_bytes: int = Field(10 << 30, gt=0, description="bytes of keys kept; the least recently used go")
    engine: str = Field(
        "local://",
        description="local://?workers=1&threads=2, ray://host:port?workers=4, or queue:// for workers elsewhere",
    )
    worker_key_bytes: int = Field(512 << 20, gt=0, description="bytes of expanded keys that one worker keeps")
    max_batch: int = Field(16, ge=1, description="images in one request")
    queue_depth: int = Field(64, ge=0, description="jobs that may wait for a worker before others get `busy`")
    deadline_seconds: float = Field(600.0, gt=0, description="time from a job's arrival to its end")
    result_seconds: float = Field(86400.0, gt=0, description="time that a finished job's result is kept")
    lease_seconds: float = Field(10.0, gt=0, description="silence after which a worker process has lost its jobs")
    drain_seconds: float = Field(
        20.0, ge=0, description="time for jobs to finish after SIGTERM; others go back to the queue"
    )
    queries_per_day: int = Field(100_000, ge=1, description="images of one tenant in 24 hours")
    key_bytes_per_tenant: int = Field(1 << 30, ge=1, description="bytes of evaluation keys of one tenant")
    metrics: bool = Field(True, description="serve /metrics")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    allow_toy_parameters: bool = Field(False, description="serve insecure TOY parameter sets; for tests alone")

    @cached_property
    def engine_url(self) -> EngineUrl:
        """The engine's URL, read."""
        return EngineUrl.parse(self.engine)

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Names of the parameter sets that may stand in for a network's own, the preferred one first."""
        return () if self.parameter_sets == "own" else tuple(name.strip() for name in self.parameter_sets.split(","))

    @property
    def is_loopback(self) -> bool:
        """Whether the address to listen on can be reached from this machine alone."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def storage_folder(self) -> Path | None:
        """The folder that storage is, or None for a store elsewhere."""
        if "://" not in self.storage:
            return Path(self.storage).expanduser().absolute()
        return Path(urlsplit(self.storage).path) if self.storage.startswith("file://") else None

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in use, with its driver."""
        if self.database:
            scheme, separator, rest = self.database.partition("://")
            return f"{'postgresql+psycopg' if scheme in ('postgres', 'postgresql') else scheme}{separator}{rest}"
        return f"sqlite:///{self.storage_folder}/ciphershift.db"

    @model_validator(mode="after")
    def _refuse_what_is_unsafe(self) -> Self:
        EngineUrl.parse(self.engine)
        if unknown := [name for name in self.stand_ins if name not in SETS]:
            raise ValueError(f"parameter_sets names {unknown}; known are {', '.join(SETS)}, and `own` alone")
        if self.open and not (self.is_loopback or self.open_to_network):
            raise ValueError(
                f"open = true lets everybody who reaches {self.host} use this server: listen on 127.0.0.1, make API keys "
                "(ciphershift tenants), or set CIPHERSHIFT_OPEN_TO_NETWORK=true"
            )
        if self.allow_toy_parameters and not self.is_loopback:
            raise ValueError(f"TOY parameters protect nothing and are for tests on a loopback address, not {self.host}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both or none")
        for path in (self.tls_certificate, self.tls_key):
            if path is not None and not path.is_file():
                raise ValueError(f"there is no file {path}: give the path of a PEM file")
        if not self.models.is_dir():
            raise ValueError(f"there is no folder {self.models}: models must be one, with a sub-folder for each model")
        if not self.database and self.storage_folder is None:
            raise ValueError(
                f"storage {masked(self.storage)} is no folder that could hold SQLite: set CIPHERSHIFT_DATABASE"
            )
        if self.storage.startswith("memory://") and self.engine_url.scheme == "queue":
            raise ValueError("storage memory:// is invisible to workers elsewhere: choose a folder or an object store")
        return self

    def printable(self) -> dict[str, str]:
        """Returns every effective value as text, without passwords."""
        values = {name: getattr(self, name) for name in type(self).model_fields} | {"database": self.database_url}
        return {name: masked(str(value)) for name, value in values.items()}


def masked(url: str) -> str:
    """Returns a URL without its password and without the values in its query that could be one."""
    url = re.sub(r"://([^/:@]*):[^/]*@", r"://\1:***@", url)
    return re.sub(r"([?&](?!(?:workers|threads|sslmode)=)[^=&]+)=[^&]*", r"\1=***", url) if "://" in url else url


def load_settings(**given: Any) -> Settings:
    """Returns the settings for a command line, whose options go before the environment where they are not None.

    Raises:
        ConfigurationError: a setting is refused; the message says which, why, and what to change.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigurationError("\n".join(lines)) from None
