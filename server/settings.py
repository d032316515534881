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
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ciphershift.errors import ConfigurationError
from ciphershift.he_layers.crypto.params import SETS, STAND_INS

Scheme = Literal["local", "ray", "torch", "queue"]
SHORT_TURN_LOOKUPS = 5000
"""Look-ups of all images of a turn: a few seconds of two cores."""
ZOO = Path(__file__).resolve().parent.parent / "models" / "zoo"


def available_cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineUrl:
    """A parsed engine URL.

    Attributes:
        scheme: ``local``, ``ray``, ``torch``, or ``queue`` for no engine in this process.
        address: host and port of the Ray cluster, empty to start one here; or torch's name of a device, such as ``cuda:0``.
        workers: jobs evaluated at once (local, torch), or actors that share each job (ray).
        threads: kernel threads of one worker.
        fused: whether a device uses the fused kernel of the blind rotation where there is one (torch).
    """

    scheme: Scheme
    address: str
    workers: int
    threads: int
    fused: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parses ``local://?workers=1&threads=2``, ``ray://host:port?workers=4``, ``torch://cuda:0`` or ``queue://``.

        Raises:
            ValueError: the URL names something else, or an impossible number.
        """
        parts = urlsplit(url)
        scheme = next((known for known in get_args(Scheme) if known == parts.scheme), None)
        if scheme is None:
            raise ValueError(f"engine {url!r} is not one of local://, ray://, torch:// and queue://")
        if scheme == "torch" and not parts.netloc:
            raise ValueError(f"engine {url!r} names no device: write torch://cuda:0, or torch://cpu")
        options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        known = {"workers", "threads"} | ({"fused"} if scheme == "torch" else set())
        if unknown := options.keys() - known:
            raise ValueError(
                f"engine {url!r} has unknown options {sorted(unknown)}; known are {', '.join(sorted(known, reverse=True))}"
            )
        if not all(value.isdecimal() and int(value) >= 1 for value in options.values()):
            raise ValueError(
                f"engine {url!r}: {', '.join(sorted(known, reverse=True))} must be whole numbers of at least 1"
            )
        threads = 1 if scheme == "ray" else available_cpus()
        return cls(
            scheme=scheme,
            address=parts.netloc,
            workers=int(options.get("workers", 1)),
            threads=int(options.get("threads", threads)),
            fused="fused" in options,
        )


class Settings(BaseSettings):
    """The operator's choices; every field is also an environment variable, CIPHERSHIFT_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="CIPHERSHIFT_", env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    open: bool = Field(
        False, description="no API keys: every request is the tenant `local`; for a demo on this machine"
    )
    open_to_network: bool = Field(False, description="allow `open` on an address that other machines can reach")
    allowed_hosts: str = Field(
        "",
        description="host names by which an `open` server may be addressed, separated by commas, beside loopback names and `host`",
    )
    allowed_origins: str = Field(
        "",
        description="origins of web pages whose scripts may use this server, separated by commas (https://example.org); * for every one",
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate chain: serve HTTPS")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    models: Path = Field(ZOO, description="folder of Programs, one sub-folder per model")
    parameter_sets: str = Field(
        ",".join(STAND_INS),
        description="sets that networks are evaluated under in place of their own, if they have no more noise; `own` for none",
    )
    storage: str = Field(
        default_factory=lambda: str(platformdirs.user_data_path("ciphershift") / "server"),
        description="where ciphertexts and evaluation keys are stored: a folder, or a URL that fsspec knows (s3://bucket/path)",
    )
    cache: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("ciphershift") / "server",
        description="folder for local copies of evaluation keys when storage is not a folder",
    )
    database: str = Field(
        "", description="SQLAlchemy URL of tenants, keys and jobs; if empty, SQLite in the folder `storage`"
    )
    storage_bytes: int = Field(
        10 << 30, gt=0, description="bytes of evaluation keys stored; beyond it the least recently used are deleted"
    )
    engine: str = Field(
        "local://",
        description="local://?workers=1&threads=2, ray://host:port?workers=4, torch://cuda:0, "
        "or queue:// if other processes evaluate the jobs",
    )
    worker_key_bytes: int = Field(512 << 20, gt=0, description="bytes of expanded keys that one worker caches")
    max_batch: int = Field(16, ge=1, description="images in one request")
    queue_depth: int = Field(
        64, ge=0, description="jobs of one tenant that may wait for a worker; more are refused as `busy`"
    )
    queue_depth_total: int = Field(1024, ge=0, description="jobs of all tenants that may wait for a worker")
    images_per_turn: int | None = Field(
        None,
        ge=1,
        description="images of a job that are evaluated before another tenant has its turn; if empty as many as have "
        "5000 look-ups together, at least one; on a GPU CIPHERSHIFT_MAX_BATCH",
    )
    deadline_seconds: float = Field(600.0, gt=0, description="time from a job's acceptance to its deadline")
    result_seconds: float = Field(86400.0, gt=0, description="time for which a finished job's result is kept")
    lease_seconds: float = Field(
        10.0, gt=0, description="time without a heartbeat after which a worker process loses its jobs"
    )
    drain_seconds: float = Field(
        20.0, ge=0, description="time for running jobs to finish after SIGTERM; the others return to the queue"
    )
    checkpoint_seconds: float = Field(
        30.0,
        gt=0,
        description="computing time after which a job's feature maps are saved, to go on from if its worker dies",
    )
    queries_per_day: int = Field(100_000, ge=1, description="images of one tenant in 24 hours")
    lookups_per_day: int | None = Field(
        None, ge=1, description="table look-ups of one tenant in 24 hours; no limit if empty"
    )
    requests_per_second: float = Field(
        200.0, gt=0, description="requests of one tenant to one process, averaged over a second"
    )
    uploads_per_tenant: int = Field(
        4, ge=1, description="evaluation keys that one tenant may upload at once to one process"
    )
    streams_per_tenant: int = Field(16, ge=1, description="event streams that one tenant may keep open to one process")
    max_connections: int = Field(1000, ge=1, description="open connections of one process; more are refused as `busy`")
    header_seconds: float = Field(10.0, gt=0, description="time for the head of a request, and for a TLS handshake")
    idle_seconds: int = Field(10, ge=1, description="time for which a connection is kept open between two requests")
    body_seconds: float = Field(
        30.0,
        gt=0,
        description="time over which a request body must bring, and a client read of its answer, 4096 bytes per second",
    )
    key_bytes_per_tenant: int = Field(1 << 30, ge=1, description="bytes of evaluation keys of one tenant")
    page: bool = Field(False, description="serve the page to draw on at /page/")
    page_onnxruntime: Path | None = Field(
        None,
        description="folder dist of the npm package onnxruntime-web: the page then computes the public parts of models",
    )
    metrics: bool = Field(True, description="serve /metrics")
    metrics_token: SecretStr | None = Field(
        None, description="token that /metrics requires (Authorization: Bearer); none if empty"
    )
    traces: bool = Field(
        False, description="send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT (needs the extra `otel`)"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    allow_toy_parameters: bool = Field(False, description="serve insecure TOY parameter sets; for tests only")

    @cached_property
    def engine_url(self) -> EngineUrl:
        """The engine URL, parsed."""
        return EngineUrl.parse(self.engine)

    @property
    def origins(self) -> tuple[str, ...]:
        """The allowed origins, one by one."""
        return tuple(origin.strip() for origin in self.allowed_origins.split(",") if origin.strip())

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Names of the parameter sets that may stand in for a network's own, the preferred one first.

        Without those whose look-ups share masks where a device of torch computes, which cannot evaluate them.
        """
        on_device = EngineUrl.parse(self.engine).scheme == "torch"
        return tuple(name for name in self._named_sets() if not (on_device and SETS[name].bodies > 1))

    def _named_sets(self) -> list[str]:
        return [] if self.parameter_sets == "own" else [name.strip() for name in self.parameter_sets.split(",")]

    @property
    def is_loopback(self) -> bool:
        """Whether the address to listen on is reachable from this machine only."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def turn_images(self, lookups: int) -> int:
        """Images of a job, each with so many look-ups, that are evaluated before another tenant has its turn.

        If the operator names no number: a device evaluates a request's images together. Of a small network there are as many as fill a
        short turn, since small layers take several at a time (he_layers.evaluate.images_together).
        """
        if self.images_per_turn is not None:
            return self.images_per_turn
        if self.engine_url.scheme == "torch":
            return self.max_batch
        return max(1, SHORT_TURN_LOOKUPS // lookups) if lookups else self.max_batch

    @property
    def hosts(self) -> frozenset[str]:
        """Host names by which an open server may be addressed, without ports, in lower case."""
        named = {name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()}
        return frozenset({"127.0.0.1", "::1", "localhost", self.host.lower()} | named)

    @property
    def storage_folder(self) -> Path | None:
        """The storage folder; None for an object store."""
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
    def _check(self) -> Self:
        EngineUrl.parse(self.engine)
        if unknown := [name for name in self._named_sets() if name not in SETS]:
            raise ValueError(f"parameter_sets names {unknown}; known are {', '.join(SETS)}, and `own` alone")
        if self.open and not (self.is_loopback or self.open_to_network):
            raise ValueError(
                f"open = true lets anybody who can reach {self.host} use this server: listen on 127.0.0.1, make API keys "
                "(ciphershift tenants), or set CIPHERSHIFT_OPEN_TO_NETWORK=true"
            )
        if self.allow_toy_parameters and not self.is_loopback:
            raise ValueError(
                f"TOY parameters protect nothing and are for tests on a loopback address, not {self.host}: "
                "unset CIPHERSHIFT_ALLOW_TOY_PARAMETERS"
            )
        for origin in self.origins:
            if origin != "*" and not re.fullmatch(r"https?://[a-z0-9.:[\]-]+", origin):
                raise ValueError(
                    f"allowed_origins: {origin} is no origin: write scheme, host and port alone, in small letters, like https://example.org"
                )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be set together: set both or neither")
        for path in (self.tls_certificate, self.tls_key):
            if path is not None and not path.is_file():
                raise ValueError(f"there is no file {path}: set the path of a PEM file")
        if self.tls_key is not None and self.tls_key.stat().st_mode & 0o007:
            raise ValueError(f"every user of this machine can read the TLS key {self.tls_key}: chmod o-rwx it")
        if not self.models.is_dir():
            raise ValueError(
                f"there is no folder {self.models}: set the path of a folder with one sub-folder per model"
            )
        if not self.database and self.storage_folder is None:
            raise ValueError(
                f"storage {masked(self.storage)} is not a folder and cannot hold SQLite: set CIPHERSHIFT_DATABASE"
            )
        if self.storage.startswith("memory://") and self.engine_url.scheme == "queue":
            raise ValueError("storage memory:// is not visible to other processes: use a folder or an object store")
        return self

    def for_workers(self) -> Self:
        """Returns the settings without what workers do not need: addresses and secrets of database, store and metrics."""
        return self.model_copy(update={"database": "", "storage": "", "metrics_token": None})

    def printable(self) -> dict[str, str]:
        """Returns every effective value as text, passwords masked; empty if there is none, as the environment says it."""
        values = {name: getattr(self, name) for name in type(self).model_fields} | {"database": self.database_url}
        return {name: "" if value is None else masked(str(value)) for name, value in values.items()}


def masked(url: str) -> str:
    """Returns a URL with its password, and every query value that could be one, replaced by ***."""
    url = re.sub(r"://([^:/@]*):.*@", r"://\1:***@", url)  # up to the last @: a password may hold slashes and colons
    return re.sub(r"([?&](?!(?:workers|threads|fused|sslmode)=)[^=&]+)=[^&]*", r"\1=***", url) if "://" in url else url


def load_settings(**given: Any) -> Settings:
    """Returns the settings for a command line, whose options override the environment where they are not None.

    Raises:
        ConfigurationError: a setting is refused; the message names it, the reason and the way out.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise ConfigurationError("\n".join(lines)) from None
