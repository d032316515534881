"""Integer semantics of each layer against naive loops, and the circuit without noise against the integers."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, OutOfLevelsError, ProgramError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.layers import (
    AvgPool2d,
    Conv2d,
    CReLU,
    Flatten,
    Gather,
    Layer,
    Linear,
    LookUp,
    MaxPool2d,
    ReLU,
    Reshape,
)
from ciphershift.he_layers.layers.layer import LinearLayer, Scale
from ciphershift.he_layers.program import InputSpec, OutputSpec, Program
from ciphershift.he_layers.simulate import CircuitNoise

RNG = np.random.default_rng(5)
WEIGHTS = np.array([-8, -4, -2, -1, 0, 1, 2, 4, 8], dtype=np.int8)
SILENT = CircuitNoise.silent(512)


def weights(*shape: int) -> NDArray[np.int8]:
    return RNG.choice(WEIGHTS, shape)


@pytest.mark.parametrize(
    ("stride", "padding", "groups"),
    [((1, 1), (0, 0), 1), ((2, 1), (1, 2), 1), ((1, 2), (0, 1), 2), ((3, 3), (1, 1), 4)],
)
def test_conv_is_the_sum_over_its_window(stride: tuple[int, int], padding: tuple[int, int], groups: int) -> None:
    x = RNG.integers(0, 32, (2, 4, 7, 6))
    layer = Conv2d(name="c", weight=weights(8, 4 // groups, 3, 2), stride=stride, padding=padding, groups=groups)
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    got = layer.plain(x)
    assert got.shape[1:] == layer.output_shape((4, 7, 6))
    for b, o, y, z in product(*map(range, got.shape)):
        want = 0
        for i, ky, kx in product(range(4 // groups), range(3), range(2)):
            channel = o // (8 // groups) * (4 // groups) + i
            want += int(layer.weight[o, i, ky, kx]) * padded[b, channel, y * stride[0] + ky, z * stride[1] + kx]
        assert got[b, o, y, z] == want


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(name="c", weight=weights(6, 2, 3, 3), stride=(2, 1), padding=(1, 0), groups=2),
        AvgPool2d(name="p", kernel=(2, 3), stride=(2, 2)),
        Linear(name="l", weight=weights(5, 4 * 7 * 6)),
        Gather(name="g", shape=(3, 5), index=RNG.integers(-1, 4 * 7 * 6, 15).astype(np.int32)),
    ],
)
def test_the_sparse_matrix_is_the_layer(layer: LinearLayer) -> None:
    shape = (4 * 7 * 6,) if isinstance(layer, Linear) else (4, 7, 6)
    x = RNG.integers(0, 32, (3, *shape))
    entries = layer.matrix(shape)
    dense = np.zeros((entries.rows, entries.columns), dtype=np.int64)
    np.add.at(dense, (entries.row, entries.column), entries.values)
    assert np.array_equal(layer.plain(x).reshape(3, -1), x.reshape(3, -1) @ dense.T)
    assert np.array_equal(layer.combine_squares(x.astype(np.float64)).reshape(3, -1), x.reshape(3, -1) @ (dense**2).T)
    assert layer.products(shape) == np.count_nonzero(dense)


@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((1, 3), (1, 1)), ((2, 3), (3, 1))])
def test_pools_take_greatest_and_sum_of_each_window(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    x = RNG.integers(-50, 50, (2, 3, 7, 8))
    greatest = MaxPool2d(name="m", kernel=kernel, stride=stride)
    total = AvgPool2d(name="a", kernel=kernel, stride=stride)
    got = greatest.plain(x)
    rows = {y * stride[0] + i for y in range(got.shape[2]) for i in range(kernel[0])}
    along, down = 3 * len(rows) * got.shape[3], got[0].size
    assert greatest.lookups((3, 7, 8)) == along * (kernel[1] - 1) + down * (kernel[0] - 1)
    for b, c, y, z in product(*map(range, got.shape)):
        window = x[b, c, y * stride[0] : y * stride[0] + kernel[0], z * stride[1] : z * stride[1] + kernel[1]]
        assert got[b, c, y, z] == window.max()
        assert total.plain(x)[b, c, y, z] == window.sum()


def relu(
    channels: int, *, multiplier: float = 0.5, bias: int = 3, levels: int = 31, delta_out: float = 1 / 1024
) -> ReLU:
    return ReLU(
        name="r",
        bias=np.arange(channels, dtype=np.int32) + np.int32(bias),
        multiplier=np.full(channels, multiplier),
        levels=levels,
        delta_out=delta_out,
    )


def test_relu_rounds_half_up_and_clips() -> None:
    layer = ReLU(name="r", bias=np.array([0], np.int32), multiplier=np.array([0.5]), levels=3, delta_out=0.1)
    x = np.arange(-3, 10).reshape(1, 1, 1, -1)
    assert layer.plain(x).reshape(-1).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3]


def through(layer: Layer, values: NDArray[np.int64], delta: float) -> NDArray[np.float64]:
    """The layer's circuit without noise on integers [count, *shape]: turns."""
    circuit = simulate.NoisyCircuit(SILENT, RNG)
    stage_scale = program_of(layer, values.shape[1:], delta).stages[0].scale(512)
    return layer.apply(circuit, circuit.encrypt(values.reshape(len(values), -1) * delta), stage_scale).turns


def program_of(layer: Layer, shape: tuple[int, ...], delta: float, params: str = "TOY_N128") -> Program:
    size = int(np.prod(layer.output_shape(shape)))
    return Program(
        name="p",
        version="1",
        params=params,
        input=InputSpec(shape=shape, levels=15, delta=delta),
        layers=(layer, Flatten(name="f"), Linear(name="l", weight=np.ones((2, size), dtype=np.int8))),
        output=OutputSpec(classes=("a", "b"), scale=1.0),
    )


def look_up(function: Callable[[NDArray[np.float64]], NDArray[np.float64]], steps: int, bias: int = 0) -> LookUp:
    """One channel: a function of the step's number, one step for each input unit."""
    values = np.rint(function(np.arange(steps, dtype=np.float64)))[None].astype(np.int16)
    return LookUp(
        name="t", bias=np.array([bias], np.int32), multiplier=np.array([1.0]), values=values, delta_out=1 / 1024
    )


@pytest.mark.parametrize(
    ("function", "steps"),
    [
        (lambda j: 50 * np.sin(j / 20), 512),  # the whole half of the torus is ramp
        (lambda j: (j - 100) ** 2 / 100, 200),
        (lambda j: np.where(j < 70, -30.0, 90.0), 100),
    ],
)
def test_any_function_is_exact_on_the_grid_and_constant_around_its_ramp(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], steps: int
) -> None:
    """Of 1024 points the ramp takes ``steps``: right from -512 + steps up to 511; a step lower the torus shows its other half."""
    layer = look_up(function, steps, bias=7)
    values = np.arange(steps - 512, 512) - 7
    got = through(layer, values.reshape(-1, 1), 1 / 1024).reshape(-1) * 1024
    want = np.rint(function(np.clip(values + 7, 0, steps - 1)))
    assert np.array_equal(got, want)
    assert np.array_equal(layer.plain(values.reshape(-1, 1)).reshape(-1), want)
    below = through(layer, np.array([[steps - 513 - 7]]), 1 / 1024)[0, 0] * 1024
    assert below == want[0] + want[-1] - np.rint(function(np.array([steps - 1.0])))[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": np.zeros((1, 9), dtype=np.int32)}, ProgramError, "values of type int32"),
        ({"values": np.zeros((2, 9), dtype=np.int16)}, ProgramError, r"shape \(2, 9\)"),
        ({"values": np.full((1, 9), 256, dtype=np.int16)}, OutOfLevelsError, "value 256"),
        ({"multiplier": np.array([0.0])}, ProgramError, "multiplier 0.0"),
        ({"delta_out": 0.5}, ProgramError, "levels of 0.5 turns"),
    ],
)
def test_a_table_that_is_none_is_refused(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(look_up(lambda j: j, 9), **changes)  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match=r"ramp of 0.501 turns"):
        program_of(look_up(lambda j: j / 4, 513), (1,), 1 / 1024)


def test_relu_circuit_is_exact_on_the_grid_and_saturates_in_its_window() -> None:
    """Ramp 62/1024 turns: right from -1/2 + 62/1024 up to 1/2; a step lower it wraps, mirrored."""
    layer = ReLU(name="r", bias=np.array([0], np.int32), multiplier=np.array([0.5]), levels=31, delta_out=1 / 1024)
    values = np.arange(-450, 512)
    got = through(layer, values.reshape(-1, 1, 1, 1), 1 / 1024).reshape(-1)
    assert np.array_equal(got * 1024, layer.plain(values.reshape(-1, 1, 1, 1)).reshape(-1))
    below = through(layer, np.array([-512, -482]).reshape(-1, 1, 1, 1), 1 / 1024).reshape(-1) * 1024
    assert below.tolist() == [31.0, 16.0]


def crelu(*, multiplier: float = 0.5, levels: int = 31, delta_out: float = 1 / 1024) -> CReLU:
    return CReLU(
        name="c",
        bias=np.array([5, -9], np.int32),
        multiplier=np.array([multiplier, 1.0]),
        levels=levels,
        delta_out=delta_out,
    )


def test_crelu_is_relu_of_both_signs_by_one_look_up_for_each_value() -> None:
    layer, shape = crelu(), (2, 1, 3)
    x = RNG.integers(-80, 80, (40, *shape))
    y = (x + layer.bias.reshape(1, 2, 1, 1)) * layer.multiplier.reshape(1, 2, 1, 1)
    got = layer.plain(x)
    assert np.array_equal(got[:, 0::2], np.clip(np.floor(y + 0.5), 0, 31))
    assert np.array_equal(got[:, 1::2], np.clip(-np.floor(y + 0.5), 0, 31))
    assert layer.output_shape(shape) == got.shape[1:] == (4, 1, 3)
    assert layer.lookups(shape) == 6
    parts = [layer.part(0, 1).plain(x[:, :1]), layer.part(1, 2).plain(x[:, 1:])]
    assert np.array_equal(np.concatenate(parts, axis=1), got)


def test_crelu_circuit_is_exact_on_the_grid_up_to_one_ramp_from_the_end_of_the_torus() -> None:
    """Ramps of 62/1024 and 31/1024 turns: right on [-1/2 + 62/1024, 1/2 - 62/1024); beyond, one of the two is mirrored."""
    layer = crelu()
    for channel, ramp in ((0, 62), (1, 31)):
        sums = np.arange(-512 + ramp, 512 - ramp)
        x = np.zeros((len(sums), 2, 1, 1), dtype=np.int64)
        x[:, channel, 0, 0] = sums - layer.bias[channel]
        got = through(layer, x, 1 / 1024) * 1024
        assert np.array_equal(got, layer.plain(x).reshape(len(x), -1))
        for beyond, wrong in ((512 - ramp // 2, 2 * channel + 1), (-512 + ramp // 2, 2 * channel)):
            x = np.zeros((1, 2, 1, 1), dtype=np.int64)
            x[0, channel, 0, 0] = beyond - layer.bias[channel]
            differ = through(layer, x, 1 / 1024)[0] * 1024 != layer.plain(x).reshape(-1)
            assert np.nonzero(differ)[0].tolist() == [wrong]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 2), (1, 1), (0, 1)), ((2, 2), (3, 4), (0, 0))],
)
def test_max_pool_circuit_is_exact_while_a_windows_spread_fits(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    """Windows beside each other, over each other, over the border, and with gaps between them."""
    layer = MaxPool2d(name="m", kernel=kernel, stride=stride, padding=padding)
    values = RNG.integers(-120, 120, (50, 3, 5, 6))
    got = through(layer, values, 1 / 1024) * 1024
    assert np.array_equal(got, layer.plain(values).reshape(50, -1))


def test_a_pools_look_ups_are_those_of_its_circuit() -> None:
    """Counted without an array: a Program from elsewhere may name any size."""

    class Counting(simulate.NoisyCircuit):
        count = 0

        def lookup(
            self,
            x: simulate.TorusNumbers,
            tables: np.ndarray,
            table_index: np.ndarray,
            second: np.ndarray | None = None,
        ) -> simulate.TorusNumbers:
            self.count += x.turns.shape[1]
            return super().lookup(x, tables, table_index, second)

    for kernel, stride, padding, height in product(range(1, 6), range(1, 8), range(3), range(1, 14)):
        if 2 * padding > kernel or height + 2 * padding < kernel:
            continue
        layer = MaxPool2d(name="m", kernel=(kernel, 2), stride=(stride, 1), padding=(padding, 1))
        circuit, shape = Counting(SILENT, RNG), (2, height, 3)
        layer.apply(
            circuit,
            circuit.encrypt(np.zeros((1, 2 * height * 3))),
            Scale(shape=shape, delta=1 / 64, polynomial_size=64),
        )
        assert layer.lookups(shape) == circuit.count, layer
    assert MaxPool2d(name="m", kernel=(3, 3), stride=(2, 2)).lookups((2**30, 2**30, 2**30)) > 2**90


@pytest.mark.parametrize("kind", ["inverted", "noise"])
def test_out_of_distribution_images_clip_instead_of_wrapping(tiny_program: Program, kind: str) -> None:
    """Even full-scale images leave every activation between nothing and its top."""
    images = (
        np.full((3, 1, 8, 8), 255, np.uint8) if kind == "inverted" else RNG.integers(0, 256, (3, 1, 8, 8), np.uint8)
    )
    circuit = simulate.NoisyCircuit(SILENT, RNG)
    x = circuit.encrypt(tiny_program.input.integers(images).reshape(3, -1) * tiny_program.input.delta)
    for stage in tiny_program.stages[:3]:
        x = stage.layer.apply(circuit, x, stage.scale(512))
    relu_layer = tiny_program.stages[2].layer
    assert isinstance(relu_layer, ReLU)
    assert x.turns.min() >= -1e-12
    assert x.turns.max() <= relu_layer.levels * relu_layer.delta_out + 1e-12


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2d(name="c", weight=np.full((1, 1, 1, 1), 3, np.int8)), ProgramError, "weight 3"),
        (lambda: Conv2d(name="c", weight=weights(3, 1, 2, 2), groups=2), ProgramError, "multiple of groups"),
        (lambda: relu(2, multiplier=-1.0), ProgramError, "multiplier -1.0"),
        (lambda: relu(2, levels=300), OutOfLevelsError, "levels = 300"),
        (lambda: crelu(levels=300), OutOfLevelsError, "levels = 300"),
        (
            lambda: program_of(crelu(multiplier=0.1), (2, 4, 4), 1 / 1024),
            ProgramError,
            "ramp of 0.303 turns, at most 0.25",
        ),
        (lambda: program_of(relu(3), (2, 4, 4), 1 / 1024), BadShapeError, "3 channels"),
        (lambda: program_of(relu(2, multiplier=0.05), (2, 4, 4), 1 / 1024), ProgramError, "ramp of"),
        (
            lambda: program_of(MaxPool2d(name="m", kernel=(5, 5), stride=(1, 1)), (2, 4, 4), 0.01),
            BadShapeError,
            "window",
        ),
        (lambda: InputSpec(shape=(1, 2, 2), levels=255, delta=0.01), ProgramError, "turns, more than 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Reshape(name="r", shape=(2, 0)), ProgramError, "at least 1"),
        (lambda: Reshape(name="r", shape=(2, 3)).output_shape((7,)), BadShapeError, "another number of values"),
        (lambda: Gather(name="g", shape=(2,), index=np.array([0], np.int32)), ProgramError, r"it takes int32 \[2\]"),
        (lambda: Gather(name="g", shape=(1,), index=np.array([-2], np.int32)), ProgramError, "-1 is zero"),
        (
            lambda: Gather(name="g", shape=(1,), index=np.array([9], np.int32)).output_shape((3, 3)),
            BadShapeError,
            "9 values",
        ),
    ],
)
def test_steps_that_move_values_check_their_places(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
