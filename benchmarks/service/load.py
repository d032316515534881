"""Many tenants at once on one server: lost and crossed answers, waiting times, memory.

Every request has an image of its own, encrypted under its tenant's keys. An answer that belongs to another request or tenant does not
decrypt, or decrypts to other logits than those that the plaintext network has for this image, within the circuit's noise.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.expected import TOLERANCE, ExpectedLogits
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import AsyncClient, Keystore
from ciphershift.errors import CiphershiftError
from ciphershift.he_layers.program import Program
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.tenants import Scope, TenantStore

RETRY_TIMEOUT = 3600.0  # a busy server is asked again for as long as that
SINGLE = 20  # requests of the client that is alone


@dataclass(slots=True)
class _Outcome:
    """Outcomes of requests, each for the image with its number."""

    logits: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def send_from_tenants(
    models: Path, model: str, *, images: NDArray[np.uint8], tenants: int, in_flight: int | None = None, engine: str = ""
) -> dict[str, Any]:
    """Returns the outcome of one request per image, divided among tenants who send at the same time.

    Args:
        models: folder of Programs.
        model: one of them.
        images: uint8 [requests, C, H, W].
        tenants: how many, each with keys of its own.
        in_flight: how many requests of one tenant are open at a time; all by default.
        engine: the server's setting, if not its default.
    """
    program = Program.load(models / model)
    expected = ExpectedLogits.of(program, images, engine)
    with tempfile.TemporaryDirectory(prefix="ciphershift-service-") as folder:
        settings: dict[str, Any] = {
            "models": models,
            "storage": Path(folder, "server"),
            "open": False,
            "allow_toy_parameters": program.params.startswith("TOY"),
        } | ({"engine": engine} if engine else {})
        with running_server(**settings) as server:
            api_keys = make_tenants(Path(folder, "server"), tenants)
            result = asyncio.run(_measure(server, program, Path(folder), api_keys, images, expected, in_flight))
    return (
        envelope("service")
        | {"engine": engine or "local://", "model": model, "params": served_params(program, engine).name}
        | result
    )


def make_tenants(storage: Path, count: int) -> list[str]:
    """Makes tenants, and returns an API key of each."""
    database = Database.open(Settings(storage=str(storage)).database_url)
    try:
        store = TenantStore(database)
        names = [f"tenant-{number}" for number in range(count)]
        for name in names:
            store.create(name)
        return [store.make_key(name, (Scope.INFER, Scope.KEYS)) for name in names]
    finally:
        database.close()


async def _measure(
    server: ServerProcess,
    program: Program,
    folder: Path,
    api_keys: list[str],
    images: NDArray[np.uint8],
    expected: ExpectedLogits,
    in_flight: int | None,
) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncClient(
                    server.url,
                    model=program.name,
                    api_key=api_key,
                    keystore=Keystore(folder / f"tenant-{number}"),
                    retry_timeout=RETRY_TIMEOUT,
                    allow_toy_parameters=program.params.startswith("TOY"),
                    show_progress=False,
                )
            )
            for number, api_key in enumerate(api_keys)
        ]
        for client in clients:
            await client.predict(images[:1])  # keys made, uploaded and expanded
        alone, alone_seconds = await _ask([clients[0]], images[:SINGLE], 1)
        warm = server.memory_bytes()
        together, seconds = await _ask(clients, images, in_flight or len(images))
        end = server.memory_bytes()
    answered = np.array(sorted(together.logits), dtype=np.intp)
    logits = np.array([together.logits[number] for number in answered])
    deviation = expected.deviation(logits, answered) if len(answered) else np.array([np.inf])
    quantiles = dict(zip(("p50", "p99"), np.quantile(together.seconds or [np.nan], (0.5, 0.99)), strict=True))
    single = len(alone.seconds) / alone_seconds
    return {
        "tenants": len(clients),
        "requests": len(images),
        "in_flight": in_flight or len(images),
        "answered": len(answered),
        "lost": len(images) - len(answered),
        "errors": dict(together.errors),
        "crossed": int((deviation >= TOLERANCE).sum()),
        "worst_deviation_sigma": round(float(deviation.max()), 2),
        "agree": int((logits.argmax(axis=1) == expected.mean[answered].argmax(axis=1)).sum()) if len(answered) else 0,
        "busy_answers": _busy_answers(server.url),
        "seconds": round(seconds, 2),
        "p50_s": round(float(quantiles["p50"]), 3),
        "p99_s": round(float(quantiles["p99"]), 3),
        "requests_per_s": round(len(answered) / seconds, 3),
        "single_client_p50_s": round(float(np.median(alone.seconds)), 3),
        "single_client_requests_per_s": round(single, 3),
        "throughput_ratio": round(len(answered) / seconds / single, 3),
        "rss_warm_bytes": warm,
        "rss_end_bytes": end,
        "rss_ratio": round(end / warm, 3) if warm and end else None,
    }


async def _ask(clients: list[AsyncClient], images: NDArray[np.uint8], in_flight: int) -> tuple[_Outcome, float]:
    """Sends a request per image, in turn from each client; returns the outcomes and the total seconds."""
    outcome = _Outcome()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{len(clients)} tenants", total=len(images))

        async def one(client: AsyncClient, number: int, gate: asyncio.Semaphore) -> None:
            async with gate:
                began = time.perf_counter()
                try:
                    (outcome.logits[number],) = await client.predict(images[number : number + 1])
                    outcome.seconds.append(time.perf_counter() - began)
                except CiphershiftError as error:
                    outcome.errors[error.code] += 1
                progress.advance(task)

        gates = [asyncio.Semaphore(in_flight) for _ in clients]
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(len(images)):
                turn = number % len(clients)
                group.create_task(one(clients[turn], number, gates[turn]))
        return outcome, time.perf_counter() - started


def _busy_answers(url: str) -> int:
    """How often the server answered `busy`, by its own count."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return sum(
        int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "ciphershift_requests_total" and sample.labels["status"] == "429"
    )
