"""Jobs under `kill -9` and SIGTERM: a server and its workers are killed or restarted at random moments while clients submit jobs.

Every job must end: completed with the logits of its own images, or failed with a reason. The clients hand a job in again under the same
idempotency key when its acceptance did not reach them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.envelope import envelope
from ciphershift.benchmarks.harness.expected import ExpectedLogits
from ciphershift.benchmarks.harness.progress import watched
from ciphershift.benchmarks.harness.served import served_params
from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Keystore
from ciphershift.client.keystore import KeyPair
from ciphershift.errors import CiphershiftError, UnreachableError
from ciphershift.he_layers.crypto import ckks
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer
from ciphershift.he_layers.program import Program
from ciphershift.protocol import tensors

CLIENTS = 4
LEASE_SECONDS = 2.0
DRAIN_SECONDS = 2
DRAIN_BOUND = DRAIN_SECONDS + 2.0  # seconds from SIGTERM to the end of the process
JOB_SECONDS = 240.0  # in which a job must have ended


@dataclass(slots=True)
class _Run:
    """What happens while jobs run."""

    url: str
    server: ServerProcess | None = None
    kills: Counter[str] = field(default_factory=Counter)
    drains: list[float] = field(default_factory=list)  # seconds from SIGTERM to the end
    over: threading.Event = field(default_factory=threading.Event)


def kill_processes(
    models: Path, model: str, *, images: NDArray[np.uint8], batch: int, jobs: int, kills: int, drains: int = 0
) -> dict[str, Any]:
    """Returns how many of `jobs` jobs were lost or wrong under `kills` kills and `drains` restarts, and how long the longest drain took.

    Args:
        models: folder of Programs.
        model: one of them.
        images: uint8 [n, C, H, W]; job i takes `batch` of them, from image i on.
        batch: images in one job.
        jobs: to hand in, spread over the time of the kills.
        kills: SIGKILLs of the server process or of a worker, at random moments.
        drains: SIGTERMs of the server process, likewise.
    """
    program = Program.load(models / model)
    expected = ExpectedLogits.of(program, images)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ciphershift-faults-") as folder:
        keys = Keystore(Path(folder, "client")).open(served_params(program))
        settings = {
            "models": models,
            "storage": Path(folder, "server"),
            "port": _free_port(),
            "lease_seconds": LEASE_SECONDS,
            "drain_seconds": DRAIN_SECONDS,
            "allow_toy_parameters": program.params.startswith("TOY"),
        }
        run = _Run(f"http://127.0.0.1:{settings['port']}")
        supervisor = threading.Thread(target=_keep_running, args=(run, settings))
        supervisor.start()
        try:
            _until_answered(run, "PUT", f"/v2/keys/{keys.key_id}", keys.evaluation_keys.read_bytes(), {})
            killer = threading.Thread(target=_kill, args=(run, kills, drains))
            killer.start()

            def one(number: int) -> str:
                while sum(run.kills.values()) + len(run.drains) < number * (kills + drains) // jobs - 1:
                    time.sleep(0.05)
                chosen = np.arange(number, number + batch) % len(images)
                return _job(run, program, keys, images, chosen, expected)

            with ThreadPoolExecutor(CLIENTS) as pool:
                outcomes = Counter(watched(pool.map(one, range(jobs)), "jobs", jobs))
            killer.join()
        finally:
            run.over.set()
            supervisor.join()
    return envelope("faults") | {
        "model": model,
        "params": served_params(program).name,
        "jobs": jobs,
        "images_per_job": batch,
        "kills": dict(run.kills),
        "drains": len(run.drains),
        "longest_drain_s": round(max(run.drains), 2) if run.drains else None,
        "drain_bound_s": DRAIN_BOUND,
        "outcomes": dict(outcomes),
        "lost": outcomes["lost"],
        "wrong": outcomes["wrong"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _keep_running(run: _Run, settings: dict[str, Any]) -> None:
    """Restarts the server whenever it has exited, as an init system does."""
    while not run.over.is_set():
        try:
            with running_server(**settings) as run.server:
                while not run.over.is_set() and run.server.is_alive():
                    time.sleep(0.02)
        except RuntimeError:  # killed before it was ready
            pass
        finally:
            run.server = None


def _kill(run: _Run, kills: int, drains: int) -> None:
    """Kills or drains a server that runs, or kills a worker; the moment is random within what a few jobs take."""
    while (killed := sum(run.kills.values())) + len(run.drains) < kills + drains:
        if run.over.wait(random.uniform(0.3, 3.0)):
            return
        server = run.server
        if server is None:
            continue
        if random.randrange(kills - killed + drains - len(run.drains)) >= kills - killed:
            run.drains.append(_drain(server))
            continue
        family = server.family()
        what = random.choice(("server", "worker"))
        victims = family[:1] if what == "server" else family[1:]
        try:
            os.kill(random.choice(victims), signal.SIGKILL)
        except (IndexError, ProcessLookupError):
            continue
        run.kills[what] += 1


def _drain(server: ServerProcess) -> float:
    """Stops the server by SIGTERM; returns the seconds until its end."""
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    while server.is_alive():
        time.sleep(0.01)
    return time.monotonic() - began


def _job(
    run: _Run,
    program: Program,
    keys: KeyPair,
    images: NDArray[np.uint8],
    chosen: NDArray[np.intp],
    expected: ExpectedLogits,
) -> str:
    """Submits one job of the chosen images, follows it to its end, and returns the outcome."""
    levels = program.integers(images[chosen]).reshape(len(chosen), -1).astype(np.float64)
    encrypted = [ckks.encrypt(keys.client_keys, keys.key_id, row * program.input.delta) for row in levels]
    tensor = tensors.join_elements([ciphertext.to_bytes() for ciphertext in encrypted])
    header = json.dumps(
        {
            "parameters": {"key_id": keys.key_id, "image_shape": "x".join(map(str, program.input.shape))},
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [len(encrypted)],
                    "parameters": {"binary_data_size": len(tensor)},
                }
            ],
        }
    ).encode()
    given = {tensors.HEADER_LENGTH: str(len(header)), "Idempotency-Key": uuid.uuid4().hex}
    accepted = _until_answered(run, "POST", f"/v2/models/{program.name}/jobs", header + tensor, given)
    location = accepted.headers["Location"]
    deadline = time.monotonic() + JOB_SECONDS
    while (job := _until_answered(run, "GET", location).json()).get("state") in ("pending", "in_progress"):
        if time.monotonic() > deadline:
            return "lost"
        time.sleep(0.1)
    if job.get("state") == "failed":
        return f"failed: {job['error']['code']}"
    answer = _until_answered(run, "GET", f"{location}/result")
    if job.get("state") != "completed" or not answer.is_success:
        return "lost"
    rows = tensors.split_elements(answer.content[int(answer.headers[tensors.HEADER_LENGTH]) :])
    try:
        logits = np.stack([_decrypt(program, keys, *pair) for pair in zip(rows, encrypted, strict=True)])
    except (CiphershiftError, ValueError):  # an answer to something else
        return "wrong"
    return "completed" if expected.fit(logits, chosen) else "wrong"


def _decrypt(program: Program, keys: KeyPair, row: bytes, ciphertext: CkksCiphertext) -> NDArray[np.float64]:
    binding = Binding.of([ciphertext], program.digest)
    packed = PackedAnswer.from_bytes(row, ciphertext.params, binding, len(program.output.classes))
    return ckks.decrypt(keys.client_keys, packed) * program.turns_to_logits


def _until_answered(
    run: _Run, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Sends a request until a server has answered it; every request here may be sent twice."""
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        try:
            answer = httpx.request(method, run.url + path, content=content, headers=headers, timeout=30)
            if answer.status_code not in (429, 503):
                return answer
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise UnreachableError(f"no server has answered {method} {path} for {JOB_SECONDS:g} s")
        time.sleep(0.1)
