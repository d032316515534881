"""A worker that takes over goes on from what was saved, and gives the answers of one that was never stopped."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Keystore
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer
from ciphershift.he_layers.crypto.params import ParameterSet
from ciphershift.he_layers.layers import Add, Conv2d, Flatten, Linear, ReLU
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.server.engine import worker as worker_module
from ciphershift.server.engine.base import LayerProgress, Task, TaskResult
from ciphershift.server.engine.device import DeviceWorker
from ciphershift.server.engine.worker import KernelWorker
from ciphershift.server.settings import Settings
from tests.server.conftest import PATIENCE_SECONDS, Gated, Serve, kill_workers
from tests.support import gated_server
from tests.support.gated_server import Gate
from tests.support.metrics import samples
from tests.support.tenants import tenant

IMAGES = 3  # two together, and one alone


@pytest.fixture(scope="module", params=["TOY_N128_SHARED2", "TOY_N128"])
def used(request: pytest.FixtureRequest) -> ParameterSet:
    """Of a set whose look-ups share masks, and of one whose do not."""
    return params.get(request.param)


def _relu(name: str, **fields: Any) -> ReLU:
    return ReLU(
        name=name, bias=np.zeros(2, np.int32), multiplier=np.full(2, 0.2), levels=15, delta_out=1 / 1024, **fields
    )


@pytest.fixture(scope="module")
def program() -> Program:
    """Two layers of look-ups, and a sum of both, so that two feature maps are alive in between: 2 x 36 look-ups and 2 x 36."""
    rng = np.random.default_rng(0)
    weights = np.array([-1, 0, 1], dtype=np.int8)
    return Program(
        name="two",
        version="1",
        params="TOY_N128",
        input=InputSpec(shape=(1, 8, 8), levels=15, delta=1 / 256),
        layers=(
            Conv2d(name="conv", weight=rng.choice(weights, (2, 1, 3, 3))),
            _relu("first"),
            Conv2d(name="again", weight=rng.choice(weights, (2, 2, 1, 1))),
            _relu("second"),
            Add(name="sum", inputs=("first", "second"), terms=2),
            Flatten(name="flatten"),
            Linear(name="dense", weight=rng.choice(weights, (3, 72))),
        ),
        output=OutputSpec(classes=("a", "b", "c"), scale=1.0),
    )


@pytest.fixture(autouse=True)
def every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written behind every layer, however long that takes; layers take two images at a time."""
    monkeypatch.setattr(worker_module, "CHECKPOINT_SHARE", float("inf"))
    monkeypatch.setattr(evaluate, "BUSY", 2 * 72)


@pytest.fixture(scope="module")
def worker(
    used: ParameterSet, program: Program, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], KernelWorker]:
    """Makes workers, each with nothing in its memory."""
    models = tmp_path_factory.mktemp("models")
    program.save(models / program.name)
    settings = Settings(
        models=models, allow_toy_parameters=True, parameter_sets=used.name, checkpoint_seconds=1e-9, engine="queue://"
    )
    return lambda: KernelWorker(settings, 1)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (IMAGES, 1, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def encrypted(
    used: ParameterSet, keystore: Keystore, program: Program, images: NDArray[np.uint8]
) -> list[CkksCiphertext]:
    pair = keystore.open(used)
    levels = program.input.integers(images).reshape(len(images), -1)
    return [ckks.encrypt(pair.client_keys, pair.key_id, row * program.input.delta) for row in levels]


@pytest.fixture
def task(
    used: ParameterSet, keystore: Keystore, program: Program, encrypted: list[CkksCiphertext], tmp_path: Path
) -> Task:
    pair = keystore.open(used)
    return Task(
        job_id="1" * 32,
        model=program.name,
        model_digest=program.digest,
        key_id=pair.key_id,
        key_file=pair.evaluation_keys,
        images=tuple(ciphertext.to_bytes() for ciphertext in encrypted),
        deadline=time.time() + 600,
        checkpoint=tmp_path / "job.checkpoint",
    )


def until(steps: Iterator[LayerProgress | TaskResult], layer: str, occurrence: int = 1) -> None:
    """Lets a worker compute a layer and save it, then it dies."""
    for step in steps:
        assert isinstance(step, LayerProgress)
        occurrence -= step.layer == layer
        if not occurrence:
            next(steps)  # the checkpoint is written when the worker is asked to go on
            return


def finished(steps: Iterator[LayerProgress | TaskResult]) -> tuple[list[LayerProgress], TaskResult]:
    *progress, result = steps
    assert isinstance(result, TaskResult)
    return [step for step in progress if isinstance(step, LayerProgress)], result


@pytest.fixture
def is_right(
    used: ParameterSet, keystore: Keystore, program: Program, encrypted: list[CkksCiphertext], images: NDArray[np.uint8]
) -> Callable[[TaskResult], bool]:
    """Whether answers are within the noise of the simulation."""
    pair = keystore.open(used)
    rng = np.random.default_rng(2)
    runs = np.stack([simulate.run(program, used, images, rng) for _ in range(50)])

    def check(result: TaskResult) -> bool:
        answers = [
            PackedAnswer.from_bytes(row, used, Binding.of([ciphertext], program.digest), 3)
            for row, ciphertext in zip(result.logits, encrypted, strict=True)
        ]
        logits = np.stack([ckks.decrypt(pair.client_keys, answer) for answer in answers]) * program.turns_to_logits
        return bool(np.abs((logits - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5)

    return check


@pytest.mark.parametrize(
    ("layer", "occurrence", "resumed"),
    [("first", 1, 2 * 72), ("second", 1, 2 * 144), ("dense", 1, 2 * 144), ("first", 2, 2 * 144 + 72)],
)
def test_a_worker_goes_on_behind_the_last_layer_that_was_saved(
    worker: Callable[[], KernelWorker],
    task: Task,
    is_right: Callable[[TaskResult], bool],
    layer: str,
    occurrence: int,
    resumed: int,
) -> None:
    until(worker().run(task), layer, occurrence)
    progress, result = finished(worker().run(task))
    assert progress[0].lookups_saved == resumed
    assert progress[0].lookups_done - resumed <= 2 * 72  # the layer that comes next
    assert progress[-1].lookups_done == IMAGES * 144
    assert progress[-1].images_done == IMAGES
    assert is_right(result)


def test_a_worker_goes_on_within_a_chain_of_layers(
    worker: Callable[[], KernelWorker],
    task: Task,
    is_right: Callable[[TaskResult], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of the two channels is a slice of its own, and a worker dies after each slice."""
    monkeypatch.setattr(evaluate, "SLICE_ROWS", 1)
    saved = []
    while True:
        steps = worker().run(task)
        first = next(steps)
        assert isinstance(first, LayerProgress)
        saved.append(first.lookups_saved)
        if isinstance(second := next(steps), TaskResult):
            break
    assert saved == sorted(saved)
    assert saved[:3] == [0, 2 * 36, 2 * 72]
    assert is_right(second)


@pytest.mark.parametrize("used", ["TOY_N128"], indirect=True)
def test_a_worker_with_a_device_takes_over_answers_alone(
    worker: Callable[[], KernelWorker], task: Task, is_right: Callable[[TaskResult], bool], program: Program
) -> None:
    settings = worker()._settings.model_copy(update={"engine": "torch://cpu"})
    until(worker().run(task), "first", 2)  # two images are done, and a layer of the third
    progress, result = finished(DeviceWorker(settings, 1).run(task))
    assert progress[0].lookups_saved == 2 * program.lookups
    assert progress[-1].lookups_done == IMAGES * program.lookups
    assert is_right(result)


def test_two_deaths_cost_the_layer_under_way_and_no_more(
    worker: Callable[[], KernelWorker], task: Task, is_right: Callable[[TaskResult], bool]
) -> None:
    until(worker().run(task), "first")
    until(worker().run(task), "second")
    progress, result = finished(worker().run(task))
    assert progress[0].lookups_saved == 2 * 144
    assert is_right(result)


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b[:9000] + b"\0\1" + b[9002:], lambda _: b""])
def test_a_damaged_checkpoint_is_none(
    worker: Callable[[], KernelWorker],
    task: Task,
    is_right: Callable[[TaskResult], bool],
    spoil: Callable[[bytes], bytes],
) -> None:
    until(worker().run(task), "first")
    task.checkpoint.write_bytes(spoil(task.checkpoint.read_bytes()))
    progress, result = finished(worker().run(task))
    assert progress[0].lookups_saved == 0
    assert is_right(result)


def test_a_state_of_another_number_of_images_is_none(
    worker: Callable[[], KernelWorker],
    task: Task,
    is_right: Callable[[TaskResult], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a version that took others together."""
    until(worker().run(task), "first")
    monkeypatch.setattr(evaluate, "BUSY", 72)
    progress, result = finished(worker().run(task))
    assert progress[0].lookups_saved == 0
    assert is_right(result)


def test_a_checkpoint_of_other_images_is_none(worker: Callable[[], KernelWorker], task: Task) -> None:
    until(worker().run(task), "first")
    other = Task(**{name: getattr(task, name) for name in Task.__slots__} | {"images": task.images[::-1]})
    progress, _ = finished(worker().run(other))
    assert progress[0].lookups_saved == 0


def test_only_its_owner_reads_a_checkpoint_and_nothing_unfinished_is_left(
    worker: Callable[[], KernelWorker], task: Task
) -> None:
    until(worker().run(task), "first")
    assert [path.name for path in task.checkpoint.parent.iterdir()] == ["job.checkpoint"]
    assert task.checkpoint.stat().st_mode & 0o077 == 0


def test_a_checkpoint_that_cannot_be_written_costs_nothing_else(
    worker: Callable[[], KernelWorker], task: Task, is_right: Callable[[TaskResult], bool], tmp_path: Path
) -> None:
    elsewhere = Task(**{name: getattr(task, name) for name in Task.__slots__} | {"checkpoint": tmp_path / "no" / "x"})
    _, result = finished(worker().run(elsewhere))
    assert is_right(result)


def test_a_job_whose_workers_are_killed_twice_completes_and_leaves_no_checkpoint(
    gated: Serve, make_body: Callable[..., Any], tmp_path: Path
) -> None:
    with gated(storage=tmp_path / "store", checkpoint_seconds=1e-9) as server:
        server.gate.hold(2)  # the first of two layers is all look-ups; it has been saved when the second is done
        location = server.submit(make_body())
        job = server.held(location)
        for _ in range(2):
            while not list((tmp_path / "store").rglob("*.checkpoint")):
                time.sleep(0.02)
            kill_workers(server)
            first = job["started"]
            job = server.until(
                location, lambda job, first=first: job["started"] != first and job["progress"]["bootstraps_done"] == 144
            )
        server.gate.open()
        assert server.finished(location)["state"] == "completed"
        assert samples(server.process.url)["ciphershift_bootstraps_total", ("tiny",)] == 144
        assert not list((tmp_path / "store").rglob("*.checkpoint*"))


def test_a_long_job_makes_way_for_another_tenant_as_soon_as_it_is_saved(
    zoo: Path, bundle: tuple[str, bytes], make_body: Callable[..., Any], tmp_path: Path
) -> None:
    storage, gate = tmp_path / "store", Gate(tmp_path / "gate")
    api_keys = {name: tenant(storage, name) for name in ("first", "second")}
    gate.hold(1)
    with ExitStack() as stack:
        process = stack.enter_context(
            running_server(
                models=zoo,
                allow_toy_parameters=True,
                program=("-P", gated_server.__file__, "serve"),
                gate=gate.path,
                storage=storage,
                open=False,
                engine="local://?threads=1",
                checkpoint_seconds=1e-9,
            )
        )
        servers = {}
        for name, api_key in api_keys.items():
            headers = {"Authorization": f"Bearer {api_key}"}
            http = stack.enter_context(
                httpx.Client(base_url=process.url, headers=headers, timeout=PATIENCE_SECONDS, follow_redirects=True)
            )
            assert http.put(f"/v2/keys/{bundle[0]}", content=bundle[1]).status_code == 201
            servers[name] = Gated(process, http, gate)
        long = servers["first"].submit(make_body())
        servers["first"].held(long)  # in its first layer, which is all of its look-ups
        short = servers["second"].submit(make_body())
        gate.hold(2)  # now the first one is saved, and then makes way
        servers["second"].held(short)
        gate.open()
        assert servers["first"].finished(long)["state"] == "completed"
        assert servers["second"].finished(short)["state"] == "completed"
        text = http.get("/metrics").text
    assert 'ciphershift_bootstraps_total{model="tiny"} 288.0' in text
