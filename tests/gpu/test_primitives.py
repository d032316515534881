"""Every primitive on the device `cpu` against the native kernel: integers equal, rotations within the transforms' rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ciphershift.errors import BadShapeError, ConfigurationError
from ciphershift.he_layers.crypto import ckks, lwe, params
from ciphershift.he_layers.crypto.ciphertexts import LweCiphertextList
from ciphershift.he_layers.crypto.params import Gadget
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.gpu import device, fourier, pbs
from ciphershift.he_layers.gpu import lwe as on_device
from ciphershift.he_layers.gpu.device import words_from, words_to
from ciphershift.he_layers.gpu.keys import DeviceKeys
from ciphershift.he_layers.layers import AvgPool2d, Conv2d, Linear
from ciphershift.he_layers.layers.layer import LinearLayer, Shape
from ciphershift.he_layers.native import _kernel

CPU = torch.device("cpu")
RNG = np.random.default_rng(3)
KEY_ID = "00" * 32


def words(*shape: int) -> NDArray[np.uint32]:
    return RNG.integers(0, 2**32, shape, dtype=np.uint32)


@pytest.fixture(scope="module", params=["TOY_N128", "TOY_N128_BLOCK3", "TOY_EXACT_N512"])
def keys(request: pytest.FixtureRequest) -> ClientKeys:
    return ClientKeys.generate(params.get(request.param))


def test_sample_extract_is_the_hosts() -> None:
    toy = params.get("TOY_N128")
    encrypted = ckks.encrypt(ClientKeys.generate(toy), KEY_ID, np.linspace(-0.2, 0.2, 1500))  # two ring elements
    got = words_from(on_device.sample_extract(encrypted, CPU))
    assert np.array_equal(got, lwe.sample_extract(encrypted).data)


@pytest.mark.parametrize(("base_log", "levels"), [(2, 6), (1, 13), (4, 3), (6, 2), (3, 10)])
@pytest.mark.parametrize("binary_key", [True, False])
def test_key_switch_is_the_kernels(base_log: int, levels: int, binary_key: bool) -> None:
    x, key = words(9, 302), words(2, 301 * levels, 32)
    x[0], x[1, ::2] = 0, 2**31
    want = _kernel.key_switch(
        x, key, output_dimension=37, base_log=base_log, levels=levels, binary_key=binary_key, threads=1
    )
    flat = np.ascontiguousarray(np.concatenate(key, axis=1)[:, :38])
    doubles = words_to(CPU, flat).to(torch.float64)
    got = on_device.key_switch(
        words_to(CPU, x), doubles, Gadget(base_log=base_log, levels=levels), binary_key=binary_key
    )
    assert np.array_equal(words_from(got), want)


@pytest.mark.parametrize("block_length", [1, 3, 4])
@pytest.mark.parametrize("polynomial_size", [128, 512, 2048])
def test_modulus_switch_is_the_kernels(polynomial_size: int, block_length: int) -> None:
    x = words(40, 101)
    x[0], x[1, -1] = 2**32 - 1, 2**31
    got = on_device.modulus_switch(words_to(CPU, x), polynomial_size, block_length)
    want = _kernel.modulus_switch(x, polynomial_size=polynomial_size, block_length=block_length)
    assert np.array_equal(got.numpy(), want)


def weights(*shape: int) -> NDArray[np.int8]:
    return RNG.choice(np.array([0, 0, 1, -1, 2, -8, 64], dtype=np.int8), shape)


LINEAR: list[tuple[LinearLayer, Shape]] = [
    (Conv2d(name="conv", weight=weights(4, 3, 3, 3), stride=(2, 1), padding=(1, 2)), (3, 7, 6)),
    (Conv2d(name="conv", weight=weights(6, 2, 2, 3), groups=3), (6, 5, 5)),
    (Linear(name="dense", weight=weights(5, 24)), (24,)),
    (AvgPool2d(name="pool", kernel=(2, 2), stride=(2, 2)), (2, 4, 6)),
]


@pytest.mark.parametrize(("layer", "shape"), LINEAR, ids=["conv", "grouped", "dense", "pool"])
def test_linear_layers_are_the_kernels(layer: LinearLayer, shape: Shape) -> None:
    images = words(2, int(np.prod(shape)), 33)
    images[0, 0] = 2**31
    entries = layer.matrix(shape)
    matrix = lwe.ShiftMatrix.from_entries(entries.rows, entries.columns, entries.row, entries.column, entries.values)
    got = words_from(on_device.linear(words_to(CPU, images), layer, shape))
    for image, result in zip(images, got, strict=True):
        assert np.array_equal(result, lwe.linear(LweCiphertextList(image), matrix).data)


def test_sums_that_could_be_inexact_are_refused() -> None:
    layer = Linear(name="dense", weight=np.full((1, 1 << 16), 64, dtype=np.int8))
    with pytest.raises(BadShapeError, match="4194304"):
        on_device.linear(torch.zeros((1, 1 << 16, 2), dtype=torch.int32), layer, (1 << 16,))


@pytest.mark.parametrize("polynomial_size", [128, 512, 2048])
def test_the_transforms_product_is_the_kernels(polynomial_size: int) -> None:
    """Both are within 2^-45 of the largest exact coefficient (tests/he_layers/native/test_kernel.py)."""
    lanes, points = _kernel.lanes(), polynomial_size // 2
    a, b = RNG.integers(-(2**11), 2**11, (lanes, polynomial_size)), RNG.uniform(-0.5, 0.5, (lanes, polynomial_size))
    transforms = fourier.Fourier(polynomial_size, CPU)

    def folded(x: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(x[:, :points] + 1j * x[:, points:])

    values = transforms.forward(folded(a.astype(np.float64))) * transforms.forward(folded(b))
    got = transforms.inverse(values).numpy() / points
    want = _kernel.negacyclic_product(a.astype(np.float64), b)
    error = np.concatenate([got.real, got.imag], axis=1) - want
    assert np.abs(error).max() < 2 * np.abs(want).max() * 2.0**-45


def phase_error(a: NDArray[np.uint32], b: NDArray[np.uint32], key: NDArray[np.int8]) -> NDArray[np.int32]:
    error = (a - b).astype(np.int32).astype(np.int64)
    return (error[:, -1] - error[:, :-1] @ key.astype(np.int64)).astype(np.int32)


def rotations(keys: ClientKeys, count: int, steps: int | None = None) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Rotations by so many steps (all, if left out) on the device and by the kernel."""
    parameter_set = keys.params
    server = keys.evaluation_keys(2).expand(2)
    n = parameter_set.lwe_dimension
    switched = RNG.integers(0, 2 * parameter_set.polynomial_size, (count, n + 1)).astype(np.int32)
    if steps is not None:  # a step by exponents of zero changes nothing
        switched[:, steps * parameter_set.bits_per_step : n] = 0
    tables = RNG.uniform(-0.25, 0.25, (2, parameter_set.polynomial_size))
    index = RNG.integers(0, 2, count).astype(np.int32)
    want = _kernel.blind_rotate(
        switched,
        tables,
        index,
        server.fourier_bsk,
        base_log=parameter_set.pbs.base_log,
        levels=parameter_set.pbs.levels,
        grouping_factor=parameter_set.grouping_factor,
        block_length=parameter_set.block_length,
        threads=2,
    )
    loaded = DeviceKeys.load(server, CPU)
    indices = torch.from_numpy(index).to(torch.int64)
    got = pbs.rotate(torch.from_numpy(switched), loaded, torch.from_numpy(tables), indices)
    return words_from(got), want


def test_one_step_is_the_kernels_within_the_transforms_rounding(keys: ClientKeys) -> None:
    """Each is within 2^-24 of the torus of the exact one (tests/he_layers/native/test_kernel.py)."""
    got, want = rotations(keys, 9, steps=1)
    assert np.abs((got - want).astype(np.int32)).max() < 2**9


def test_a_whole_rotation_has_the_kernels_phase(keys: ClientKeys) -> None:
    """A digit may round to the other side, and the masks with it: the phases differ by what the digits leave out."""
    got, want = rotations(keys, 9)
    assert np.abs(phase_error(got, want, keys.glwe_key.reshape(-1))).max() < 2**19


@pytest.mark.parametrize("name", ["FAST_N512_PAIRS", "FAST_N512_BLOCK3", "FAST_N512_BLOCK4", "EXACT_N2048_BLOCK3"])
def test_the_published_sets_rotate_alike(name: str) -> None:
    """The first twelve bits of the key alone."""
    short = replace(params.get(name), lwe_dimension=12)
    keys = ClientKeys.generate(short)
    got, want = rotations(keys, 5)
    assert np.abs(phase_error(got, want, keys.glwe_key.reshape(-1))).max() < 2**19


def test_look_ups_are_the_tables_values(keys: ClientKeys) -> None:
    """From the input's key, from the big key and from both: phases of a plateau come out as its value, in several batches."""
    parameter_set = keys.params
    loaded = DeviceKeys.load(keys.evaluation_keys(2).expand(2), CPU)
    plateau = np.full((1, parameter_set.polynomial_size), 0.125)
    levels = np.tile([0.25, -0.25], 40)
    inputs = on_device.sample_extract(ckks.encrypt(keys, KEY_ID, levels), CPU)
    table, index = torch.from_numpy(plateau), torch.zeros(80, dtype=torch.int64)
    once = pbs.pbs(inputs, loaded, table, index)
    twice = pbs.pbs(once + once, loaded, table, index)
    both = torch.cat([inputs[:, :-1], torch.zeros_like(once)], dim=1)
    both[:, -1] = inputs[:, -1]
    key = keys.glwe_key.reshape(-1).astype(np.int64)
    for result in (once, twice, pbs.pbs(both, loaded, table, index)):
        rows = words_from(result).astype(np.int64)
        turns = ((rows[:, -1] - rows[:, :-1] @ key) % 2**32).astype(np.uint32).astype(np.int32) / 2.0**32
        assert np.abs(turns - np.sign(levels) * 0.125).max() < 0.02


def test_other_dimensions_are_refused(keys: ClientKeys) -> None:
    loaded = DeviceKeys.load(keys.evaluation_keys(2).expand(2), CPU)
    with pytest.raises(BadShapeError, match="dimension 6"):
        pbs.key_switch(torch.zeros((1, 7), dtype=torch.int32), loaded)


@pytest.mark.parametrize("name", ["cuda:77", "nothing", "mps"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name!r}"):
        device.find(name, threads=1)
