"""Jobs while servers and their workers are killed and restarted in turn and the model is replaced, at random moments.

Every job must end: completed with the logits of its own images by one version of the model, or failed with a reason. The clients hand a
job in again under the same idempotency key when its acceptance did not reach them, and as a new one when it was accepted for a version
that is gone. Several servers share one database and one store, and the clients ask any of them.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from ciphershift.errors import (
    CiphershiftError,
    ConfigurationError,
    ModelChangedError,
    ProgramError,
    UnreachableError,
)
from ciphershift.he_layers.crypto import ckks
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer, ciphertext_type
from ciphershift.he_layers.layers import Linear
from ciphershift.he_layers.program import Program
from ciphershift.protocol import tensors
from ciphershift.server.repository import Repository
from ciphershift.server.settings import Settings
from ciphershift.server.store.database import Database
from ciphershift.server.store.model_states import ModelStates

CLIENTS = 4
LEASE_SECONDS = 2.0
DRAIN_SECONDS = 2
DRAIN_BOUND = DRAIN_SECONDS + 2.0  # seconds from SIGTERM to the end of the process
JOB_SECONDS = 240.0  # in which a job must have ended


@dataclass(frozen=True, slots=True)
class _Version:
    """A version of the model, and the logits that it must give."""

    program: Program
    expected: ExpectedLogits


@dataclass(slots=True)
class _Run:
    """What happens while jobs run."""

    urls: list[str]
    servers: list[ServerProcess | None]  # None while one is not ready
    kills: Counter[str] = field(default_factory=Counter)
    drains: list[tuple[int, float]] = field(
        default_factory=list
    )  # number of the server, seconds from SIGTERM to the end
    swaps: int = 0
    sent_again: int = 0  # jobs that had been accepted for a version that was gone
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def faults(self) -> int:
        """How many have happened."""
        return sum(self.kills.values()) + len(self.drains) + self.swaps


def kill_processes(
    models: Path,
    model: str,
    *,
    images: NDArray[np.uint8],
    batch: int,
    jobs: int,
    kills: int,
    drains: int = 0,
    swaps: int = 0,
    servers: int = 2,
) -> dict[str, Any]:
    """Returns how many of `jobs` jobs were lost or wrong under so many faults, and how long the longest drain took.

    Args:
        models: folder of Programs.
        model: one of them; it ends in a dense layer.
        images: uint8 [n, C, H, W]; job i takes `batch` of them, from image i on.
        batch: images in one job.
        jobs: to hand in, spread over the time of the faults.
        kills: SIGKILLs of a server process or of a worker, at random moments.
        drains: SIGTERMs of one server after the other, each when all are ready, as in a rolling upgrade.
        swaps: replacements of the model by its other version, whose classes are in reverse order.
        servers: processes, each with a worker.
    """
    program = Program.load(models / model)
    versions = [_Version(each, ExpectedLogits.of(each, images)) for each in (program, _reversed(program))]
    events = ["kill"] * kills + ["drain"] * drains + ["swap"] * swaps
    random.shuffle(events)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ciphershift-faults-") as folder:
        keys = Keystore(Path(folder, "client")).open(served_params(program))
        settings = {
            "models": Path(folder, "models"),
            "storage": Path(folder, "server"),
            "lease_seconds": LEASE_SECONDS,
            "drain_seconds": DRAIN_SECONDS,
            "allow_toy_parameters": program.params.startswith("TOY"),
        }
        program.save(Path(folder, "models", model))
        ports = _free_ports(servers)
        run = _Run([f"http://127.0.0.1:{port}" for port in ports], [None] * servers)
        supervisors = [
            threading.Thread(target=_keep_running, args=(run, number, {**settings, "port": port}))
            for number, port in enumerate(ports)
        ]
        for supervisor in supervisors:
            supervisor.start()
        try:
            _until_answered(run, "PUT", f"/v2/keys/{keys.key_id}", keys.evaluation_keys.read_bytes(), {})
            chaos = threading.Thread(target=_make_faults, args=(run, events, versions, settings))
            chaos.start()

            def one(number: int) -> str:
                while run.faults < number * len(events) // jobs - 1:
                    time.sleep(0.05)
                chosen = np.arange(number, number + batch) % len(images)
                return _job(run, versions, keys, images, chosen)

            with ThreadPoolExecutor(CLIENTS) as pool:
                outcomes = Counter(watched(pool.map(one, range(jobs)), "jobs", jobs))
            chaos.join()
        finally:
            run.over.set()
            for supervisor in supervisors:
                supervisor.join()
    return envelope("faults") | {
        "model": model,
        "params": served_params(program).name,
        "jobs": jobs,
        "images_per_job": batch,
        "servers": servers,
        "kills": dict(run.kills),
        "drains": len(run.drains),
        "drained": [sum(drained == number for drained, _ in run.drains) for number in range(servers)],
        "longest_drain_s": round(max(seconds for _, seconds in run.drains), 2) if run.drains else None,
        "drain_bound_s": DRAIN_BOUND,
        "swaps": run.swaps,
        "sent_again": run.sent_again,
        "outcomes": dict(outcomes),
        "lost": sum(count for outcome, count in outcomes.items() if outcome.startswith(("lost", "refused"))),
        "wrong": outcomes["wrong"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _reversed(program: Program) -> Program:
    """Another version of a model: the same but for its logits, which are in reverse order."""
    last = program.layers[-1]
    if not isinstance(last, Linear):
        raise ProgramError(f"{program.name!r} does not end in a dense layer: name another model")
    bias = None if last.bias is None else last.bias[::-1].copy()
    layers = (*program.layers[:-1], replace(last, weight=last.weight[::-1].copy(), bias=bias))
    return replace(program, version=f"{program.version}-reversed", layers=layers)


def _free_ports(count: int) -> list[int]:
    """Free ports below those that systems choose (32768 and more), so that nobody else gets one while its server is down."""
    free: list[int] = []
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
    if len(free) < count:
        raise ConfigurationError(f"of 100 ports from 20000 to 32000 fewer than {count} are free: stop other servers")
    return free[:count]


def _keep_running(run: _Run, number: int, settings: dict[str, Any]) -> None:
    """Restarts a server whenever it has exited, as an init system does."""
    while not run.over.is_set():
        try:
            with running_server(**settings) as server:
                run.servers[number] = server
                while not run.over.is_set() and server.is_alive():
                    time.sleep(0.02)
        except ConfigurationError:  # killed before it was ready
            pass
        finally:
            run.servers[number] = None


def _make_faults(run: _Run, events: Sequence[str], versions: Sequence[_Version], settings: dict[str, Any]) -> None:
    """Does what the events say to the servers that run; the moments are random within what a few jobs take."""
    done = 0
    while done < len(events):
        if run.over.wait(random.uniform(0.3, 3.0)):
            return
        if events[done] == "swap":
            run.swaps += 1
            _swap(versions[run.swaps % len(versions)].program, settings)
        elif not (_drain_next(run) if events[done] == "drain" else _kill(run)):
            continue
        done += 1


def _drain_next(run: _Run) -> bool:
    """Drains the server whose turn it is; returns whether all were ready for it."""
    ready = [server for server in run.servers if server is not None and server.is_alive()]
    if len(ready) < len(run.servers):
        return False
    number = len(run.drains) % len(ready)
    run.drains.append((number, _drain(ready[number])))
    return True


def _kill(run: _Run) -> bool:
    """Kills the process of a server or one of its workers; returns whether there was one."""
    server = random.choice(run.servers)
    if server is None:
        return False
    family = server.family()
    what = random.choice(("server", "worker"))
    victims = family[:1] if what == "server" else family[1:]
    try:
        os.kill(random.choice(victims), signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return False
    run.kills[what] += 1
    return True


def _swap(program: Program, settings: dict[str, Any]) -> None:
    """Replaces the model as an operator does: the new folder is written beside the old one and renamed, then loaded."""
    folder = settings["models"] / program.name
    new, old = (folder.parent.with_name(f"models-{which}") for which in ("new", "old"))
    program.save(new)
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)
    chosen = Settings(models=settings["models"], allow_toy_parameters=settings["allow_toy_parameters"])
    database = Database.open(Settings(storage=str(settings["storage"])).database_url)
    try:
        ModelStates(database, Repository(chosen)).load(program.name, "ciphershift bench faults")
    finally:
        database.close()


def _drain(server: ServerProcess) -> float:
    """Stops the server by SIGTERM; returns the seconds until its end."""
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    while server.is_alive():
        time.sleep(0.01)
    return time.monotonic() - began


def _job(
    run: _Run, versions: Sequence[_Version], keys: KeyPair, images: NDArray[np.uint8], chosen: NDArray[np.intp]
) -> str:
    """Submits one job of the chosen images, follows it to its end, and returns the outcome."""
    program = versions[0].program
    levels = program.integers(images[chosen]).reshape(len(chosen), -1).astype(np.float64)
    kind = ciphertext_type(program.lookups)
    encrypted = [ckks.encrypt(keys.client_keys, keys.key_id, row * program.input.delta, kind) for row in levels]
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
    deadline = time.monotonic() + JOB_SECONDS
    state, code, location = "failed", ModelChangedError.code, ""
    while (state, code) == ("failed", ModelChangedError.code) and time.monotonic() < deadline:
        run.sent_again += bool(location)
        given = {tensors.HEADER_LENGTH: str(len(header)), "Idempotency-Key": uuid.uuid4().hex}
        accepted = _until_answered(run, "POST", f"/v2/models/{program.name}/jobs", header + tensor, given)
        if not accepted.is_success:
            return f"refused: {accepted.json()['code']}"
        location = accepted.headers["Location"]
        while (job := _until_answered(run, "GET", location).json()).get("state") in ("pending", "in_progress"):
            if time.monotonic() > deadline:
                return "lost"
            time.sleep(0.1)
        state, code = job.get("state"), (job.get("error") or {}).get("code", "")
    if state == "failed":
        return f"failed: {code}"
    answer = _until_answered(run, "GET", f"{location}/result")
    if state != "completed" or not answer.is_success:
        return "lost"
    rows = tensors.split_elements(answer.content[int(answer.headers[tensors.HEADER_LENGTH]) :])
    answered = any(_is_answered(version, keys, rows, encrypted, chosen) for version in versions)
    return "completed" if answered else "wrong"


def _is_answered(
    version: _Version,
    keys: KeyPair,
    rows: Sequence[bytes],
    encrypted: Sequence[CkksCiphertext],
    chosen: NDArray[np.intp],
) -> bool:
    """Whether this version of the model made the answer: by the answer's binding, and by its logits."""
    program = version.program
    try:
        logits = np.stack([_decrypt(program, keys, *pair) for pair in zip(rows, encrypted, strict=True)])
    except (CiphershiftError, ValueError):  # an answer to something else
        return False
    return version.expected.fit(logits, chosen)


def _decrypt(program: Program, keys: KeyPair, row: bytes, ciphertext: CkksCiphertext) -> NDArray[np.float64]:
    binding = Binding.of([ciphertext], program.digest)
    packed = PackedAnswer.from_bytes(row, ciphertext.params, binding, program.answer_values)
    return program.logits(ckks.decrypt(keys.client_keys, packed))


def _until_answered(
    run: _Run, method: str, path: str, content: bytes = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Sends a request to one server after the other until one has answered it; every request here may be sent twice."""
    deadline = time.monotonic() + JOB_SECONDS
    for url in itertools.cycle(random.sample(run.urls, len(run.urls))):
        try:
            answer = httpx.request(method, url + path, content=content, headers=headers, timeout=30)
            if answer.status_code not in (429, 503):
                return answer
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    raise UnreachableError(f"no server has answered {method} {path} for {JOB_SECONDS:g} s")
