"""The torch circuit is the simulated circuit."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.he_layers.layers import MaxPool2d
from ciphershift.he_layers.layers.layer import Scale
from ciphershift.he_layers.simulate import CircuitNoise, NoisyCircuit, TorusNumbers
from ciphershift.models.compiler.convert import convert
from ciphershift.models.nn.lookup import max_pool, triangle, with_noise

LAYERS = (nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4))
SILENT = CircuitNoise.silent(1 << 16)


def test_the_triangle_is_the_table_all_around_the_torus() -> None:
    turns, ramp, size = np.linspace(-0.9, 0.9, 3601), 0.2, SILENT.polynomial_size
    table = (np.minimum(np.arange(size) / (2 * size), ramp) - ramp / 2)[None]
    x = TorusNumbers(turns=turns[None], under_input_key=False, under_big_key=True)
    circuit = NoisyCircuit(SILENT, np.random.default_rng(0))
    expected = circuit.lookup(x, table, np.zeros(len(turns), dtype=np.int32)).turns[0] + ramp / 2
    assert np.allclose(triangle(torch.tensor(turns), ramp).numpy(), expected, atol=2e-5)


def test_max_pool_is_the_layer_also_where_it_wraps() -> None:
    turns = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 3, 6, 6))
    scale = Scale(shape=(3, 6, 6), delta=1.0, polynomial_size=SILENT.polynomial_size)
    x = TorusNumbers(turns=turns.reshape(2, -1), under_input_key=True, under_big_key=False)
    layer = MaxPool2d(name="m", kernel=(3, 2), stride=(2, 1))
    expected = layer.apply(NoisyCircuit(SILENT, np.random.default_rng(0)), x, scale).turns.reshape(2, 3, 2, 5)
    assert np.allclose(max_pool(torch.tensor(turns), (3, 2), (2, 1), 0.0, 0.0).numpy(), expected, atol=1e-4)


def test_noise_has_its_standard_deviation() -> None:
    # 40 000 samples: known to 0.4 %, tolerance 2 %.
    torch.manual_seed(0)
    assert abs(with_noise(torch.zeros(40_000), 0.05).std().item() / 0.05 - 1) < 0.02


def test_keys_add_their_noise() -> None:
    levels = replace(SILENT, modulus_switch=2.0, input_key_switch=3.0, big_key_switch=6.0)
    assert [levels.lookup_input(*keys) for keys in ((True, True), (False, False))] == [7.0, 2.0]


@pytest.mark.parametrize(
    ("kernel", "noisy"), [((1, 2), False), ((2, 1), False), ((2, 2), True), ((1, 3), True), ((3, 1), True)]
)
def test_the_first_round_of_a_pool_has_its_own_noise(kernel: tuple[int, int], noisy: bool) -> None:
    """Equal values, no noise in the first round: only what is compared again can differ."""
    pooled = max_pool(torch.zeros(2, 3, 6, 6), kernel, kernel, 0.0, 0.05)
    assert bool((pooled != 0).any()) is noisy


@pytest.mark.slow  # it compiles for half a minute
@pytest.mark.filterwarnings("default")  # torch warns itself while it compiles
def test_compiled_look_ups_and_pools_are_the_same_with_the_same_gradients() -> None:
    torch.manual_seed(0)
    eager = convert(nn.Sequential(*LAYERS), torch.rand(20, 1, 8, 8))
    compiled = deepcopy(eager)
    compiled.fuse()
    images = torch.rand(4, 1, 8, 8)
    results = []
    for network in (eager, compiled):
        torch.manual_seed(1)
        logits = network(images)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in network.parameters())])
    for mine, other in zip(*results, strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-5 * float(mine.abs().max()))
