"""Ray actors on one machine or many: a coordinator actor evaluates the job, and worker actors share the look-ups of two slices at a time.

The coordinator expands a bundle of keys once and puts it into Ray's object store. Each node fetches it once, and all worker actors of the
node map the same memory. When a worker actor dies, another one repeats its chunk, and Ray restarts it. Anybody who can connect to a Ray
cluster can run code on it, so a cluster that admits a caller without the token is refused before this process joins it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any
from uuid import uuid4

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ciphershift.errors import CiphershiftError, ConfigurationError, DeadlineError, WorkerLostError
from ciphershift.he_layers import evaluate
from ciphershift.he_layers.crypto import pbs
from ciphershift.he_layers.crypto.ciphertexts import CkksCiphertext, LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.evaluate import State
from ciphershift.he_layers.layers.layer import FloatArray
from ciphershift.server import logs
from ciphershift.server.engine.base import LayerProgress, Stopped, Task, TaskResult, WorkerState
from ciphershift.server.engine.worker import KernelWorker, load_bundle, read_bundle, resident_bytes
from ciphershift.server.repository import Model
from ciphershift.server.settings import Settings

CHUNKS_PER_WORKER = 2  # so that one slow worker does not delay a slice by a whole share
COMPUTING = "computing"  # the group of a worker's calls of which one runs at a time
GRACE_SECONDS = 5.0
POLL_SECONDS = 2.0  # between two health checks of the actors
PROBE_SECONDS = 60.0  # to ask a cluster whether it admits callers without a token
SECRETS = ("CIPHERSHIFT_DATABASE", "CIPHERSHIFT_METRICS_TOKEN")  # variables that this process has read already
# Secrets that clients in this process read again whenever they connect, so that they must stay in its environment.
STILL_READ = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PGPASSWORD",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
)
# A process of its own, since Ray reads its mode of authentication once: exit status 0 if the cluster answers a caller without a token,
# 3 if it refuses one, else 1.
_PROBE = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)
except AuthenticationError:
    sys.exit(3)
"""
_raylet: Any = import_module("ray._raylet")  # what it says of authentication is in no public module
_log = logs.get("engine")


class LookupWorker:
    """Actor that evaluates look-ups. Keys are memory that all actors of the node share."""

    def __init__(self, threads: int) -> None:
        """Args: threads: kernel threads."""
        self._threads = threads

    @ray.method(concurrency_group=COMPUTING)
    def look_up(
        self,
        keys: ServerKeys,
        x: LweCiphertextList,
        tables: FloatArray,
        index: NDArray[np.int32],
        second: NDArray[np.int32] | None,
    ) -> LweCiphertextList:
        """Evaluates one chunk of a slice; the next one waits here for its turn."""
        return pbs.pbs(x, keys, tables, index, second=second, threads=self._threads)

    def resident_bytes(self) -> int:
        """Resident memory of the process; an answer also shows that the actor is alive."""
        return resident_bytes()


class Coordinator(KernelWorker):
    """Actor that evaluates jobs, one at a time; concurrent calls stop it or ask for its state."""

    def __init__(self, settings: Settings, lookup_workers: list[Any]) -> None:
        """Loads every model. Args: lookup_workers: handles of LookupWorker actors."""
        super().__init__(settings, settings.engine_url.threads)
        self._lookup_workers = lookup_workers
        self._stored: dict[int, Any] = {}  # reference in the object store, by id() of the expanded keys
        self._bundle: bytes = b""
        self._stopped: set[str] = set()
        self._require_wanted: Callable[[], None] = lambda: None

    def evaluate_job(self, task: Task, bundle: bytes, run: str) -> Iterator[LayerProgress | TaskResult]:
        """Evaluates a task with a bundle of keys, like Worker.run; ends without a TaskResult when the run of this name is canceled."""

        def require_wanted() -> None:
            if run in self._stopped:
                raise Stopped
            if time.time() > task.deadline:
                raise DeadlineError("the deadline of the job passed in the middle of a layer")

        self._bundle, self._require_wanted = bundle, require_wanted
        with suppress(Stopped):
            for item in self.run(task):
                yield item
                require_wanted()

    def cancel(self, run: str) -> None:
        """Stops a run, once the chunks that are being computed for it are done."""
        self._stopped.add(run)

    def worker_state(self) -> WorkerState:
        """Memory and key cache."""
        return self.state

    def _expand(self, task: Task, model: Model) -> ServerKeys:
        reference = ray.put(load_bundle(self._bundle, task, model.params).expand(self._threads))
        keys: ServerKeys = ray.get(reference)  # mapped from the store, not copied
        cached = set(map(id, self._keys.values()))
        self._stored = {name: kept for name, kept in self._stored.items() if name in cached} | {id(keys): reference}
        return keys

    def _evaluate(
        self, model: Model, keys: ServerKeys, images: Sequence[CkksCiphertext], start: State[LweCiphertextList] | None
    ) -> Iterator[evaluate.Progress]:
        reference = self._stored[id(keys)]

        together = [[image] for image in images]
        share = partial(self._share, self._require_wanted, reference)
        remote = evaluate.RemoteLookups(share, len(self._lookup_workers))
        return evaluate.run(model.program, keys, together, threads=self._threads, remote=remote, start=start)

    def _share(
        self,
        require_wanted: Callable[[], None],
        keys: Any,
        x: LweCiphertextList,
        tables: FloatArray,
        index: NDArray[np.int32],
        second: NDArray[np.int32] | None,
    ) -> LweCiphertextList:
        """Splits a slice's look-ups into chunks; a worker gets the slice's next chunk when it has finished one."""
        shared_tables = ray.put(tables)
        todo = deque(_chunks(len(x), CHUNKS_PER_WORKER * len(self._lookup_workers)))
        idle = deque(self._lookup_workers)
        running: dict[Any, tuple[slice | None, Any]] = {}
        parts: dict[int, LweCiphertextList] = {}
        while todo or any(chunk for chunk, _ in running.values()):
            require_wanted()
            while todo and idle:
                chunk, lookup_worker = todo.popleft(), idle.popleft()
                rows = replace(x, data=x.data[chunk])
                running[lookup_worker.look_up.remote(keys, rows, shared_tables, index[chunk], second)] = (
                    chunk,
                    lookup_worker,
                )
            (done,), _ = ray.wait(list(running), num_returns=1)
            finished, lookup_worker = running.pop(done)
            try:
                result = ray.get(done)
            except RayActorError:
                if finished is not None:
                    todo.append(finished)
                time.sleep(0.05)
                running[lookup_worker.resident_bytes.remote()] = (
                    None,
                    lookup_worker,
                )  # completes when Ray has restarted it
                continue
            idle.append(lookup_worker)
            if finished is not None:
                parts[finished.start] = result
        found = [parts[start].data for start in sorted(parts)]
        if second is not None:  # the first results of all rows, then the second ones
            found = [half for each in range(2) for half in (np.split(data, 2)[each] for data in found)]
        return LweCiphertextList(np.concatenate(found))


def _chunks(count: int, pieces: int) -> Iterator[slice]:
    pairs = -(-count // 2)  # which may share a mask
    bounds = 2 * np.linspace(0, pairs, min(pieces, pairs) + 1).astype(int)
    return (slice(start, stop) for start, stop in pairwise(np.minimum(bounds, count).tolist()))


class RayEngine:
    """A coordinator and look-up workers on a Ray cluster, of which this machine must be a node."""

    slots = 1  # all workers share one job

    def __init__(self, settings: Settings) -> None:
        """Checks that Ray uses token authentication here, and that the cluster, if one is named, requires it.

        Raises:
            ConfigurationError: token authentication is off, or the cluster does not answer.
        """
        self._settings = settings
        self.lookup_workers: list[Any] = []
        self._coordinator: Any = None  # handles of actors have the methods that Ray gives them
        self._states: dict[str, WorkerState] = {}
        self._bundles: OrderedDict[str, tuple[int, Any]] = OrderedDict()
        self._address = settings.engine_url.address
        if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
            raise ConfigurationError(
                "anybody who can connect to a Ray cluster can run code on it: unset RAY_AUTH_MODE here and on every node, "
                "and give all of them the same token (ray get-auth-token --generate; RAY_AUTH_TOKEN_PATH)"
            )
        if self._address:
            _require_authentication(self._address)

    @property
    def workers(self) -> dict[str, WorkerState]:
        """The live actors; none until the coordinator is ready."""
        return dict(self._states) if "coordinator" in self._states else {}

    def start(self) -> None:
        """Connects and starts the actors, without waiting for them."""
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ends the actors and the tasks they evaluate."""
        self._watcher.cancel()
        with suppress(asyncio.CancelledError, RayError):
            await self._watcher
        self._states.clear()
        await asyncio.to_thread(ray.shutdown)

    async def run(self, task: Task, report: Callable[[LayerProgress], None]) -> TaskResult:
        """Evaluates a task, see Engine.run."""
        bundle = await asyncio.to_thread(self._stored_bundle, task)
        name = uuid4().hex
        items = self._coordinator.evaluate_job.remote(task, bundle, name)
        running = asyncio.ensure_future(self._follow(items, report))
        try:
            async with asyncio.timeout(max(task.deadline - time.time(), 0) + GRACE_SECONDS):
                return await asyncio.shield(running)
        except TimeoutError:
            await self._cancel(name, running)
            raise DeadlineError("the job's deadline passed and the workers did not stop") from None
        except asyncio.CancelledError:
            await self._cancel(name, running)
            raise

    async def _follow(self, items: AsyncIterator[Any], report: Callable[[LayerProgress], None]) -> TaskResult:
        try:
            async for reference in items:
                item = await reference
                if isinstance(item, TaskResult):
                    return item
                report(item)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, CiphershiftError):
                raise cause from None
            _log.error("job_failed", exc_info=error)
            raise CiphershiftError(f"the worker failed ({type(cause).__name__}); the server's log says why") from None
        except RayError as error:
            raise WorkerLostError(f"the coordinator actor of this job was lost ({type(error).__name__})") from None
        raise Stopped

    async def _cancel(self, run: str, running: asyncio.Future[TaskResult]) -> None:
        self._coordinator.cancel.remote(run)
        await asyncio.wait({running}, timeout=GRACE_SECONDS)
        running.cancel()

    def _stored_bundle(self, task: Task) -> Any:
        """The bundle of keys in the object store, from which the coordinator's node fetches it once."""
        name = str(task.key_file)  # one name per upload: never an older bundle of the same id
        size, reference = self._bundles.pop(name, (0, None))
        if reference is None:
            data = bytes(read_bundle(task))
            size, reference = len(data), ray.put(data)
        self._bundles[name] = size, reference
        while len(self._bundles) > 1 and sum(s for s, _ in self._bundles.values()) > self._settings.worker_key_bytes:
            self._bundles.popitem(last=False)
        return reference

    def _connect(self) -> None:
        url = self._settings.engine_url
        for name in SECRETS:  # nodes that are started here inherit the environment
            os.environ.pop(name, None)
        without = {"env_vars": dict.fromkeys((*SECRETS, *STILL_READ), "")}  # what actors have in place of their node's
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Without this Ray joins a cluster that has no authentication, if it finds no token. It reads the variable when it is imported.
        os.environ["RAY_AUTH_MODE"] = "token"
        _raylet.Config.initialize("")
        own: dict[str, Any] = {"num_cpus": url.workers * url.threads + 1, "include_dashboard": False}
        if self._address:
            host = self._address.rpartition(":")[0]
            # On loopback the node to join has that address, not the one that Ray detects for this machine.
            own = {"_node_ip_address": host} if host.startswith("127.") else {}
        address = self._address or "local"
        ray.init(address=address, namespace="ciphershift", log_to_driver=False, runtime_env=without, **own)
        if _raylet.get_authentication_mode() != _raylet.AuthenticationMode.TOKEN:
            ray.shutdown()
            raise ConfigurationError(
                "Ray connected without token authentication: set RAY_AUTH_MODE=token on every node"
            )
        grouped = ray.remote(concurrency_groups={COMPUTING: 1})  # type: ignore[call-overload]  # which does not know it
        lookup_worker = grouped(LookupWorker).options(
            num_cpus=url.threads, max_restarts=-1, scheduling_strategy="SPREAD"
        )
        self.lookup_workers = [lookup_worker.remote(url.threads) for _ in range(url.workers)]
        coordinator = ray.remote(Coordinator).options(num_cpus=0, max_restarts=-1, max_concurrency=3)
        self._coordinator = coordinator.remote(self._settings.for_workers(), self.lookup_workers)

    async def _watch(self) -> None:
        await asyncio.to_thread(self._connect)
        while True:
            states = {"coordinator": self._coordinator.worker_state.remote()}
            states |= {
                f"lookup-worker-{i}": lookup_worker.resident_bytes.remote()
                for i, lookup_worker in enumerate(self.lookup_workers)
            }
            for name, reference in states.items():
                try:
                    async with asyncio.timeout(10 * POLL_SECONDS):
                        answer = await reference
                    self._states[name] = answer if isinstance(answer, WorkerState) else _without_keys(answer)
                except (RayError, TimeoutError):
                    self._states.pop(name, None)
            await asyncio.sleep(POLL_SECONDS)


def _require_authentication(address: str) -> None:
    """Raises ConfigurationError unless the cluster refuses a caller that has no token."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    environment["RAY_AUTH_MODE"] = "disabled"
    command = [sys.executable, "-c", _PROBE, address]
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=PROBE_SECONDS, check=False)
        if done.returncode == 3:
            return
        if done.returncode == 0:
            raise ConfigurationError(
                f"the Ray cluster at {address} answers callers without a token, so anybody who can connect can run code on it: "
                "start every node with RAY_AUTH_MODE=token"
            )
    raise ConfigurationError(f"no Ray cluster answers at {address}: start it first, and check host and port")


def _without_keys(rss_bytes: int) -> WorkerState:
    return WorkerState(rss_bytes=rss_bytes, key_cache_bytes=0, key_cache_hits=0, key_cache_misses=0)
