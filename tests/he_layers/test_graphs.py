"""Programs with branches: what a layer sees, what is refused, what the encrypted circuit computes, in slices or at once."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError
from ciphershift.he_layers import evaluate, simulate
from ciphershift.he_layers.crypto import ckks, params, pbs
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.crypto.evaluation_keys import ServerKeys
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.layers import (
    Add,
    AvgPool2d,
    ChannelShuffle,
    Conv2d,
    CReLU,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Scale,
)
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program

TOY = params.get("TOY_N128")
KEY_ID = "ab" * 32
RNG = np.random.default_rng(7)
BIAS = np.arange(4, dtype=np.int32)
WEIGHTS = np.array([-2, -1, 0, 1, 2], dtype=np.int8)


def weights(*shape: int) -> NDArray[np.int8]:
    return RNG.choice(WEIGHTS, shape)


def relu(name: str, *, lowest: int = 0, multiplier: float = 0.2, delta_out: float = 1 / 512) -> ReLU:
    return ReLU(
        name=name,
        bias=BIAS,
        multiplier=np.full(4, multiplier),
        levels=15,
        delta_out=delta_out,
        lowest=lowest,
    )


@pytest.fixture(scope="module")
def branched() -> Program:
    """Three channels in; a residual block; two branches joined, shuffled and convolved depthwise; pools with padding."""
    one = (1, 1)
    return Program(
        name="branched",
        version="1",
        params=TOY.name,
        input=InputSpec(shape=(3, 8, 8), levels=15, delta=1 / 512),
        layers=(
            Conv2d(name="stem", weight=weights(4, 3, 3, 3), padding=one),
            MaxPool2d(name="stem_pool", kernel=(3, 3), stride=(2, 2), padding=one),
            relu("x"),
            Conv2d(name="inner", weight=weights(4, 4, 3, 3), padding=one),
            relu("a", lowest=-14),
            Conv2d(name="branch", weight=weights(4, 4, 3, 3), padding=one),
            Add(name="sum", inputs=("branch", "x"), terms=2),
            relu("y", delta_out=1 / 2048),
            Conv2d(name="other", inputs=("x",), weight=weights(4, 4, 1, 1)),
            CReLU(name="z", bias=BIAS, multiplier=np.full(4, 0.2), levels=15, delta_out=1 / 2048),
            ChannelShuffle(name="shuffled", inputs=("y", "z"), groups=2),
            Conv2d(name="depthwise", weight=weights(12, 1, 2, 2), groups=12),
            AvgPool2d(name="mean", kernel=(2, 2), stride=(2, 2), padding=one),
            Flatten(name="flat"),
            Linear(name="logits", weight=weights(3, 48), bias=np.array([5, -5, 0], np.int32)),
        ),
        output=OutputSpec(classes=("a", "b", "c"), scale=1.0),
    )


IMAGES = RNG.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)


def naive(program: Program, image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The same network written down by hand, layer after layer."""
    layer = {layer.name: layer.plain for layer in program.layers}
    x = layer["x"](layer["stem_pool"](layer["stem"](program.input.integers(image[None]))))
    a = layer["a"](layer["inner"](x))
    y = layer["y"](layer["branch"](a) + x)
    z = layer["z"](layer["other"](x))
    both = np.concatenate([y, z], axis=1)[:, [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]]
    return layer["logits"](layer["flat"](layer["mean"](layer["depthwise"](both))))[0]


def test_a_layer_sees_its_inputs_joined(branched: Program) -> None:
    assert np.array_equal(simulate.plain(branched, IMAGES), [naive(branched, image) for image in IMAGES])
    assert branched.stages[10].sources == ("y", "z")
    assert branched.stages[10].shape == (12, 4, 4)


def test_branches_survive_their_files(branched: Program, tmp_path: Path) -> None:
    branched.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.digest == branched.digest
    assert np.array_equal(simulate.plain(loaded, IMAGES), simulate.plain(branched, IMAGES))


def test_a_result_is_dropped_after_its_last_use(branched: Program) -> None:
    values = {"image": "image"}
    for stage in branched.stages:
        branched.take(values, stage, join="".join)
        values[stage.layer.name] = stage.layer.name
        assert set(values) <= {"image", "x", stage.layer.name, "y", "inner", "branch"}
        assert ("x" in values) == (stage.layer.name in ("x", "inner", "a", "branch", "sum", "y"))
    assert set(values) == {"logits"}


@pytest.fixture(scope="module")
def sliced() -> Program:
    """Four channels become eight in mid-chain, each with a table of its own."""
    return Program(
        name="sliced",
        version="1",
        params=TOY.name,
        input=InputSpec(shape=(1, 6, 6), levels=15, delta=1 / 512),
        layers=(
            Conv2d(name="conv", weight=weights(4, 1, 3, 3)),
            CReLU(name="both", bias=BIAS, multiplier=np.full(4, 0.3), levels=15, delta_out=1 / 64),
            ReLU(
                name="after",
                bias=-np.arange(8, dtype=np.int32),
                multiplier=np.linspace(1, 2, 8),
                levels=15,
                delta_out=1 / 1024,
            ),
            Flatten(name="flat"),
            Linear(name="logits", weight=weights(3, 128)),
        ),
        output=OutputSpec(classes=("a", "b", "c"), scale=1.0),
    )


def walked(
    steps: Iterator[evaluate.Progress],
) -> tuple[list[evaluate.Progress], list[evaluate.State[LweCiphertextList]]]:
    """Each step, and the state after each but the last."""
    found, states = [], []
    for step in steps:
        found.append(step)
        if step.snapshot is not None:
            states.append(step.snapshot())
    return found, states


@pytest.fixture(scope="module")
def keys() -> ClientKeys:
    return ClientKeys.generate(TOY)


def remote(server_keys: ServerKeys, before: Callable[[LweCiphertextList], object]) -> evaluate.RemoteLookups:
    """Look-ups that are computed here, each slice's after ``before`` was called with its ciphertexts."""

    def look_up(
        x: LweCiphertextList, tables: NDArray[np.float64], index: NDArray[np.int32], second: NDArray[np.int32] | None
    ) -> LweCiphertextList:
        before(x)
        return pbs.pbs(x, server_keys, tables, index, second=second)

    return evaluate.RemoteLookups(look_up, workers=1)


@pytest.mark.parametrize("rows", [evaluate.SLICE_ROWS, 40])
def test_encrypted_branches_are_the_simulated_ones(
    branched: Program, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    # 40 simulated runs give mean and spread of each logit; three encrypted images stay within five standard deviations.
    monkeypatch.setattr(evaluate, "SLICE_ROWS", rows)
    simulated = np.stack([simulate.run(branched, TOY, IMAGES, np.random.default_rng(i)) for i in range(40)])
    server_keys = keys.evaluation_keys().expand(1)
    for image, mean, std in zip(IMAGES, simulated.mean(axis=0), simulated.std(axis=0), strict=True):
        turns = branched.input.integers(image[None]).reshape(-1) * branched.input.delta
        steps = list(evaluate.run(branched, server_keys, [[ckks.encrypt(keys, KEY_ID, turns)]], threads=2))
        assert steps[-1].answer is not None
        logits = ckks.decrypt(keys, steps[-1].answer) * branched.turns_to_logits
        assert np.abs((logits - mean) / std).max() < 5
        assert steps[-1].lookups_done == branched.lookups
        assert [step.answer is None for step in steps] == [True] * (len(steps) - 1) + [False]
        assert (len(steps) > len(list(evaluate.chains(branched)))) == (rows == 40)


@pytest.mark.parametrize("kind", ["branched", "sliced"])
def test_images_are_evaluated_together_and_go_on_from_any_slice(
    request: pytest.FixtureRequest, kind: str, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sharing masks: each has the answer that it has alone, and layers get the look-ups of all of them in one call."""
    monkeypatch.setattr(evaluate, "SLICE_ROWS", 120)
    program: Program = request.getfixturevalue(kind)
    samples = RNG.integers(0, 256, (3, *program.input.shape), dtype=np.uint8)
    spread = np.stack([simulate.run(program, TOY, samples, np.random.default_rng(i)) for i in range(40)]).std(axis=0)
    server_keys = keys.evaluation_keys().expand(1)
    turns = program.input.integers(samples).reshape(3, -1) * program.input.delta
    images = [[ckks.encrypt(keys, KEY_ID, row)] for row in turns]
    counts = list[int]()
    counting = remote(server_keys, lambda x: counts.append(len(x)))

    def logits(*runs: Any) -> NDArray[np.float64]:
        answers = [answer for run in runs for answer in list(run)[-1].answers]
        return np.stack([ckks.decrypt(keys, answer) for answer in answers]) * program.turns_to_logits

    steps, states = walked(evaluate.run(program, server_keys, images, remote=counting))
    assert sum(counts) == len(images) * program.lookups == len(images) * steps[-1].lookups_done
    assert all(number % len(images) == 0 for number in counts)
    alone = logits(*(evaluate.run(program, server_keys, [image]) for image in images))
    part = next(state for state in states if state.rows is not None)
    for together in (logits(steps), logits(evaluate.run(program, server_keys, images, start=part))):
        assert (np.abs(together - alone) < spread / 4).all()


@pytest.mark.parametrize(("busy", "images"), [(128, 1), (129, 2), (384, 3), (100_000, evaluate.MOST_TOGETHER)])
def test_small_layers_take_several_images_at_a_time(
    branched: Program, monkeypatch: pytest.MonkeyPatch, busy: int, images: int
) -> None:
    assert branched.lookups / sum(stage.lookups > 0 for stage in branched.stages) == 128
    monkeypatch.setattr(evaluate, "BUSY", busy)
    assert evaluate.images_together(branched) == images


def test_layers_behind_both_signs_are_sliced_with_them(
    sliced: Program, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation goes on from any slice."""
    assert [stage.layer.name for stage in next(evaluate.chains(sliced))] == ["conv", "both", "after"]
    monkeypatch.setattr(evaluate, "SLICE_ROWS", 16)  # one channel of the convolution
    image = RNG.integers(0, 256, (1, 1, 6, 6), dtype=np.uint8)
    runs = np.stack([simulate.run(sliced, TOY, image, np.random.default_rng(i))[0] for i in range(60)])
    encrypted = [[ckks.encrypt(keys, KEY_ID, sliced.input.integers(image).reshape(-1) * sliced.input.delta)]]
    server_keys = keys.evaluation_keys().expand(1)
    whole, states = walked(evaluate.run(sliced, server_keys, encrypted))
    middle = states[1]
    assert middle.channels == 2
    meeting = threading.Barrier(2)
    met = remote(server_keys, lambda _: meeting.wait(timeout=300))  # until the other slice's look-ups have come, too
    shared, shared_states = walked(evaluate.run(sliced, server_keys, encrypted, remote=met))
    assert [step.lookups_done for step in shared] == [step.lookups_done for step in whole]
    rest = list(evaluate.run(sliced, server_keys, encrypted, start=middle))
    shared_rest = list(evaluate.run(sliced, server_keys, encrypted, start=shared_states[1], remote=met))
    for answer in (steps[-1].answer for steps in (whole, rest, shared, shared_rest)):
        assert answer is not None
        logits = ckks.decrypt(keys, answer) * sliced.turns_to_logits
        assert np.abs((logits - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5


def test_what_is_joined_is_held_by_nobody_else_and_let_go_of_part_by_part(
    branched: Program, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feature map of ImageNet's size takes more than a gigabyte."""
    join, put = evaluate.EncryptedCircuit.join, evaluate.EncryptedCircuit.put
    held: list[list[int]] = []
    arrays: list[weakref.ref[NDArray[np.uint32]]] = []
    alive: list[int] = []

    def counting(self: evaluate.EncryptedCircuit, parts: list[LweCiphertextList]) -> LweCiphertextList:
        held.append([sys.getrefcount(parts[number]) for number in range(len(parts))])
        arrays[:] = [weakref.ref(part.data) for part in parts]
        alive.clear()
        return join(self, parts)

    def watching(self: evaluate.EncryptedCircuit, room: LweCiphertextList, start: int, part: LweCiphertextList) -> None:
        alive.append(sum(array() is not None for array in arrays))
        put(self, room, start, part)

    monkeypatch.setattr(evaluate.EncryptedCircuit, "join", counting)
    monkeypatch.setattr(evaluate.EncryptedCircuit, "put", watching)
    server_keys = keys.evaluation_keys().expand(1)
    turns = branched.input.integers(IMAGES[:1]).reshape(-1) * branched.input.delta
    steps = evaluate.run(branched, server_keys, [[ckks.encrypt(keys, KEY_ID, turns)]])
    released = []
    for step in steps:  # the one before is held while the next one is computed
        released.append(alive[:2])
        assert step.lookups_done <= branched.lookups
    assert [2, 2] in held, "the list, and the question itself"
    assert [2, 1] in released


def test_a_walk_that_ends_early_leaves_no_slice_running(
    branched: Program, keys: ClientKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "SLICE_ROWS", 40)
    server_keys = keys.evaluation_keys().expand(1)
    turns = branched.input.integers(IMAGES[:1]).reshape(-1) * branched.input.delta
    failing = threading.Event()

    def fail(_: LweCiphertextList) -> None:
        if failing.is_set():
            raise MemoryError

    before = set(threading.enumerate())
    failed = remote(server_keys, fail)
    steps = evaluate.run(branched, server_keys, [[ckks.encrypt(keys, KEY_ID, turns)]], remote=failed)
    assert next(steps).snapshot is not None
    steps.close()  # type: ignore[attr-defined]
    assert not set(threading.enumerate()) - before
    steps = evaluate.run(branched, server_keys, [[ckks.encrypt(keys, KEY_ID, turns)]], remote=failed)
    next(steps)
    failing.set()
    with pytest.raises(MemoryError):
        list(steps)
    assert not set(threading.enumerate()) - before


def test_chains_end_where_a_value_is_read_twice_or_channels_mix(branched: Program) -> None:
    assert [[stage.layer.name for stage in chain] for chain in evaluate.chains(branched)] == [
        ["stem", "stem_pool", "x"],
        ["inner", "a"],
        ["branch"],
        ["sum"],
        ["y"],
        ["other", "z"],
        ["shuffled"],
        ["depthwise"],
        ["mean"],
        ["flat"],
        ["logits"],
    ]


def test_a_ramp_below_zero_is_exact_on_the_grid() -> None:
    layer = relu("r", lowest=-8, multiplier=0.5)
    x = np.arange(-40, 60).reshape(1, 1, -1).repeat(4, axis=1)
    assert layer.plain(x).min() == -8
    assert layer.plain(x).max() == 15
    silent = simulate.CircuitNoise.silent(512)
    circuit = simulate.NoisyCircuit(silent, RNG)
    scale = Scale(shape=(4, 100), delta=1 / 1024, polynomial_size=512)
    found = layer.apply(circuit, circuit.encrypt(x.reshape(1, -1) / 1024), scale).turns * 512
    assert np.allclose(found, layer.plain(x).reshape(1, -1))


def test_graphs_that_do_not_fit_are_refused(branched: Program) -> None:
    def changed(changed_name: str, /, **fields: Any) -> Program:
        layers = tuple(replace(layer, **fields) if layer.name == changed_name else layer for layer in branched.layers)
        return replace(branched, layers=layers)

    with pytest.raises(ProgramError, match="no layers before it"):
        changed("sum", inputs=("branch", "later"))
    with pytest.raises(ProgramError, match="no layer takes the results of"):
        changed("shuffled", inputs=("y", "y", "y"))
    with pytest.raises(ProgramError, match="different scales"):
        changed("x", delta_out=1 / 1024)
    with pytest.raises(BadShapeError, match="first axis only"):
        changed("sum", inputs=("branch", "stem"))
    with pytest.raises(BadShapeError, match="adds 3 values"):
        changed("sum", terms=3)
    with pytest.raises(BadShapeError, match="shuffles 5"):
        changed("shuffled", groups=5)
    with pytest.raises(ProgramError, match="half its kernel"):
        changed("stem_pool", padding=(2, 2))
    with pytest.raises(OutOfLevelsError, match="lowest"):
        changed("a", lowest=3)
    with pytest.raises(ProgramError, match="other than 'image'"):
        changed("stem", name="image")
