"""What every engine must do, over each of them: the same answers, progress, cancellation, deadlines, typed errors."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift import errors
from ciphershift.client import Keystore
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, params
from ciphershift.he_layers.crypto.ciphertexts import Binding, CkksCiphertext, PackedAnswer
from ciphershift.he_layers.layers import CReLU, Linear, ReLU
from ciphershift.he_layers.program import Program
from ciphershift.server.engine import make_engine
from ciphershift.server.engine.base import Engine, LayerProgress, Task
from ciphershift.server.settings import Settings

ENGINES = ["local://?workers=1&threads=1", "ray://?workers=2&threads=1", "torch://cpu?threads=1"]


class Bench:
    """An engine that is ready, an event loop around it, and tasks for it."""

    def __init__(self, url: str, zoo: Path, keystore: Keystore, program: Program, folder: Path) -> None:
        self.program = program
        self.folder = folder
        on_device = url.startswith("torch")
        self.params = params.get("TOY_N128_BLOCK3" if on_device else "TOY_N128_SHARED2")
        self.pair = keystore.open(self.params)
        engine = make_engine(
            Settings(engine=url, models=zoo, allow_toy_parameters=True, parameter_sets=self.params.name)
        )
        assert engine is not None
        self.together = 1 if on_device else evaluate.images_together(program)
        self.engine: Engine = engine
        self.runner = asyncio.Runner()
        self.run(self._start)

    async def _start(self) -> None:
        self.engine.start()
        await self.until_ready()

    async def until_ready(self) -> None:
        await self.until(lambda: bool(self.engine.workers))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(300):
            while not condition():
                await asyncio.sleep(0.05)

    def key_cache(self) -> tuple[int, int]:
        """Hits and misses of all workers; Ray's are told every other second."""
        states = self.engine.workers.values()
        return sum(state.key_cache_hits for state in states), sum(state.key_cache_misses for state in states)

    def run(self, call: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        return self.runner.run(call(*arguments))

    def close(self) -> None:
        self.run(self.engine.stop)
        self.runner.close()

    def encrypt(self, images: NDArray[np.uint8]) -> list[CkksCiphertext]:
        levels = self.program.input.integers(images).reshape(len(images), -1)
        return [ckks.encrypt(self.pair.client_keys, self.pair.key_id, row * self.program.input.delta) for row in levels]

    def task(self, encrypted: list[CkksCiphertext], **changes: Any) -> Task:
        given: dict[str, Any] = {
            "job_id": uuid.uuid4().hex,
            "model": self.program.name,
            "model_digest": self.program.digest,
            "key_id": self.pair.key_id,
            "key_file": self.pair.evaluation_keys,
            "images": tuple(ciphertext.to_bytes() for ciphertext in encrypted),
            "deadline": time.time() + 600,
            "checkpoint": self.folder / "checkpoint",
        }
        return Task(**given | changes)

    def decrypt(self, encrypted: list[CkksCiphertext], rows: tuple[bytes, ...]) -> NDArray[np.float64]:
        classes = len(self.program.output.classes)
        packed = [
            PackedAnswer.from_bytes(row, self.params, Binding.of([ciphertext], self.program.digest), classes)
            for row, ciphertext in zip(rows, encrypted, strict=True)
        ]
        return (
            np.stack([ckks.decrypt(self.pair.client_keys, answer) for answer in packed]) * self.program.turns_to_logits
        )


@pytest.fixture(scope="module", params=ENGINES, ids=["local", "ray", "torch"])
def bench(
    request: pytest.FixtureRequest,
    keystore: Keystore,
    tiny_program: Program,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    conv, pool, relu, flatten, dense = tiny_program.layers
    assert isinstance(relu, ReLU) and isinstance(dense, Linear)
    both = CReLU(
        name="relu", bias=relu.bias, multiplier=1.3 * relu.multiplier, levels=relu.levels, delta_out=relu.delta_out
    )  # one look-up has two results
    wider = replace(dense, weight=np.concatenate([dense.weight, -dense.weight[:, ::-1]], axis=1))
    program = replace(tiny_program, layers=(conv, pool, both, flatten, wider))
    zoo = tmp_path_factory.mktemp("zoo")
    program.save(zoo / program.name)
    bench = Bench(request.param, zoo, keystore, program, tmp_path_factory.mktemp("checkpoints"))
    yield bench
    bench.close()


def test_answers_are_those_of_the_simulation_and_progress_is_told(bench: Bench, tiny_images: NDArray[np.uint8]) -> None:
    tiny_images = tiny_images[:3]
    encrypted = bench.encrypt(tiny_images)
    steps: list[LayerProgress] = []
    answer = bench.run(bench.engine.run, bench.task(encrypted), steps.append)
    rng = np.random.default_rng(2)
    runs = np.stack([simulate.run(bench.program, bench.params, tiny_images, rng) for _ in range(50)])
    logits = bench.decrypt(encrypted, answer.logits)
    assert np.abs((logits - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5
    evaluations = -(-len(tiny_images) // bench.together)
    assert [step.layer for step in steps] == ["relu", "flatten", "dense"] * evaluations
    done = [step.lookups_done for step in steps]
    assert done == sorted(done)
    assert done[-1] == bench.program.lookups * len(tiny_images)
    assert steps[-1].images_done == len(tiny_images)
    assert answer.seconds > answer.key_seconds > 0


def test_keys_are_expanded_once(bench: Bench, tiny_images: NDArray[np.uint8]) -> None:
    encrypted = bench.encrypt(tiny_images[:1])
    results = [bench.run(bench.engine.run, bench.task(encrypted), lambda _: None) for _ in range(4)]
    assert len({result.logits for result in results}) == 4  # each answer is masked anew
    bench.run(bench.until, lambda: bench.key_cache()[0] >= 3)  # a worker's state arrives some time after its result
    assert bench.key_cache()[1] == 1


def test_a_canceled_task_stops_between_two_layers(bench: Bench, tiny_images: NDArray[np.uint8]) -> None:
    encrypted = bench.encrypt(tiny_images[:1]) * 200
    steps: list[LayerProgress] = []

    async def cancel() -> None:
        running = asyncio.create_task(bench.engine.run(bench.task(encrypted), steps.append))
        while not steps:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    bench.run(cancel)
    told = len(steps)
    assert told < 3 * len(encrypted)
    assert bench.run(bench.engine.run, bench.task(encrypted[:1]), lambda _: None).logits
    assert len(steps) == told


def test_a_passed_deadline_is_said_so(bench: Bench, tiny_images: NDArray[np.uint8]) -> None:
    task = bench.task(bench.encrypt(tiny_images), deadline=time.time() - 1)
    with pytest.raises(errors.DeadlineError):
        bench.run(bench.engine.run, task, lambda _: None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"images": (b"nothing",)}, errors.BadMagicError),
        ({"key_id": "77" * 32}, errors.WrongKeyError),
        ({"model": "none"}, errors.UnknownModelError),
        ({"model_digest": "77" * 32}, errors.ModelChangedError),
        ({"key_id": "66" * 32, "key_file": Path("none.keys"), "images": ()}, errors.UnknownKeyError),
    ],
)
def test_what_is_wrong_with_a_task_is_a_typed_error(
    bench: Bench, tiny_images: NDArray[np.uint8], changes: dict[str, Any], error: type[errors.CiphershiftError]
) -> None:
    task = bench.task(bench.encrypt(tiny_images[:1]), **changes)
    with pytest.raises(error):
        bench.run(bench.engine.run, task, lambda _: None)
    assert bench.run(bench.engine.run, bench.task(bench.encrypt(tiny_images[:1])), lambda _: None).logits
