"""Two Ray nodes on loopback: both compute, and a worker that is killed in mid-job costs nothing but time."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray

from ciphershift.client import Keystore
from ciphershift.errors import ConfigurationError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.server.engine.base import LayerProgress
from ciphershift.server.engine.ray import SECRETS, STILL_READ, RayEngine
from ciphershift.server.settings import Settings
from tests.server.test_conformance import Bench

TOY = params.get("TOY_N128")


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
head, *others = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "node_ip_address": head})
for other in others:
    cluster.add_node(num_cpus=1, node_ip_address=other)
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


@contextmanager
def running_cluster(mode: str, *nodes: str) -> Iterator[str]:
    """A cluster with one CPU for each address; yields that of its head. Ray takes 127.0.0.1 for another name of the outer address."""
    environment = os.environ | {"RAY_AUTH_MODE": mode}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, *nodes],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("\n")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A head and a second raylet, which ask for a token that this process has, too."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ |= dict.fromkeys(
        (*SECRETS, *STILL_READ), "postgresql://user:geheim@db/ciphershift"
    )  # nodes inherit them
    with running_cluster("token", "127.0.0.2", "127.0.0.3") as address:
        yield address
    for name in STILL_READ:
        del os.environ[name]


@pytest.fixture(scope="module")
def bench(
    cluster: str, zoo: Path, keystore: Keystore, tiny_program: Program, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    bench = Bench(
        f"ray://{cluster}?workers=2&threads=1", zoo, keystore, tiny_program, tmp_path_factory.mktemp("checkpoints")
    )
    yield bench
    bench.close()


def lookup_workers() -> list[int]:
    """Process ids of the actors that compute look-ups."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and path.read_bytes().startswith(b"ray::LookupWorker")
    ]


def _node_id(_: object) -> str:
    return str(ray.get_runtime_context().get_node_id())


def test_both_nodes_compute(bench: Bench) -> None:
    assert isinstance(bench.engine, RayEngine)
    nodes = ray.get([worker.__ray_call__.remote(_node_id) for worker in bench.engine.lookup_workers])
    assert len(set(nodes)) == 2


def test_a_worker_that_is_killed_in_mid_job_loses_nothing(bench: Bench, tiny_images: NDArray[np.uint8]) -> None:
    images = np.concatenate([tiny_images] * 6)
    encrypted = bench.encrypt(images)
    steps: list[LayerProgress] = []
    killed: list[int] = []

    async def run_and_kill() -> tuple[bytes, ...]:
        running = asyncio.create_task(bench.engine.run(bench.task(encrypted), steps.append))
        while len(steps) < 6:
            await asyncio.sleep(0.005)
        assert not running.done()
        killed.append(lookup_workers()[0])
        os.kill(killed[0], signal.SIGKILL)
        return (await running).logits

    rows = bench.run(run_and_kill)
    assert len(steps) == 3 * -(-len(images) // bench.together)
    runs = np.stack([simulate.run(bench.program, TOY, images, np.random.default_rng(i)) for i in range(50)])
    deviation = np.abs((bench.decrypt(encrypted, rows) - runs.mean(axis=0)) / runs.std(axis=0))
    assert deviation.max() < 6
    assert killed[0] not in lookup_workers()
    assert bench.run(bench.engine.run, bench.task(encrypted[:1]), lambda _: None).logits


def test_a_run_that_is_canceled_before_it_begins_computes_nothing(bench: Bench, tiny_images: NDArray[np.uint8]) -> None:
    assert isinstance(bench.engine, RayEngine)
    task = bench.task(bench.encrypt(tiny_images))
    coordinator, bundle = bench.engine._coordinator, bench.engine._stored_bundle(task)
    ray.get(coordinator.cancel.remote("this one"))
    assert list(coordinator.evaluate_job.remote(task, bundle, "this one")) == []
    *progress, result = (ray.get(item) for item in coordinator.evaluate_job.remote(task, bundle, "another"))
    assert progress
    assert len(result.logits) == len(tiny_images)


def _environment(_: object) -> dict[str, str]:
    return dict(os.environ)


def test_no_actor_is_given_a_password(bench: Bench) -> None:
    assert isinstance(bench.engine, RayEngine)
    assert not set(SECRETS) & set(os.environ)  # what this process starts inherits its environment
    assert set(STILL_READ) <= set(os.environ), "its clients of database and store read them at every connection"
    actors = [*bench.engine.lookup_workers, bench.engine._coordinator]
    for environment in ray.get([actor.__ray_call__.remote(_environment) for actor in actors]):
        assert not any("geheim" in value for value in environment.values())
    database, storage = "postgresql://user:geheim@db/ciphershift", "s3://key:geheim@bucket/path"
    assert b"geheim" not in pickle.dumps(Settings(database=database, storage=storage).for_workers())


def test_actors_are_to_have_nothing_in_place_of_their_nodes_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cluster: what Ray is told, and what nodes that it starts inherit."""
    told: list[tuple[dict[str, str], dict[str, str]]] = []

    def init(*, runtime_env: dict[str, dict[str, str]], **_: object) -> None:
        told.append((runtime_env["env_vars"], dict(os.environ)))
        raise ConnectionError

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in (*SECRETS, *STILL_READ):
        monkeypatch.setenv(name, "geheim")
    engine = RayEngine(Settings(engine="ray://", models=tmp_path))
    with pytest.raises(ConnectionError):
        engine._connect()
    ((for_actors, inherited),) = told
    assert for_actors == dict.fromkeys((*SECRETS, *STILL_READ), "")
    assert not set(SECRETS) & set(inherited)
    assert {name for name, value in os.environ.items() if value == "geheim"} == set(STILL_READ)


def test_a_cluster_that_admits_callers_without_a_token_is_refused(zoo: Path) -> None:
    with (
        running_cluster("disabled", "127.0.0.5") as address,
        pytest.raises(ConfigurationError, match="answers callers without a token"),
    ):
        RayEngine(Settings(engine=f"ray://{address}", models=zoo, allow_toy_parameters=True))


def test_a_cluster_that_is_not_there_is_said_so(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ciphershift.server.engine.ray.PROBE_SECONDS", 1.0)
    with pytest.raises(ConfigurationError, match="no Ray cluster answers"):
        RayEngine(Settings(engine="ray://127.0.0.1:1", models=zoo, allow_toy_parameters=True))


def test_a_process_in_which_authentication_is_off_is_refused(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigurationError, match="unset RAY_AUTH_MODE"):
        RayEngine(Settings(engine="ray://127.0.0.1:6379", models=zoo, allow_toy_parameters=True))
