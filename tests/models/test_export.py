"""The exported Program computes what the torch network computes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from he_layers import simulate
from he_layers.crypto import params as parameter_sets
from he_layers.program import Program
from he_layers.simulate import CircuitNoise
from models.data import Split
from models.export import to_program
from models.network import ConvSpec, DenseSpec, Network
from models.training import logits

BLOCKS = (
    ConvSpec(maps=4, kernel=3, stride=2, padding=1, pool=2),
    ConvSpec(maps=5, kernel=3, padding=1),
    DenseSpec(units=12),
)
PARAMS = parameter_sets.get("FAST_N512")
IMAGES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (64, 1, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Network:
    """Untrained weights, statistics of the images, offsets and tops that differ between channels."""
    torch.manual_seed(0)
    network = Network((1, 16, 16), BLOCKS, classes=3)
    for block in network.stages():
        with torch.no_grad():
            block.offset.uniform_(-0.5, 0.5)
            block.top.uniform_(1.0, 3.0)
    network.quantise(True)
    network.train()
    for _ in range(100):  # statistics settle
        network(torch.tensor(IMAGES).float() / 255)
    network.eval()
    return network


@pytest.fixture(scope="module")
def program(network: Network) -> Program:
    return to_program(network, name="small", version="1", params=PARAMS.name, classes=("a", "b", "c"))


def test_the_program_is_the_network(network: Network, program: Program) -> None:
    expected = logits(network, IMAGES)
    found = simulate.plain(program, IMAGES) * program.output.scale
    # Biases become integers and float32 sums may fall on the other side of a rounding: few activations move by one level of 31.
    assert np.abs(found - expected).mean() < 0.05 * expected.std()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_both_see_the_same_noise(network: Network, program: Program) -> None:
    # Standard deviation of the logits around the noiseless ones over 64 images, 10 runs each: equal to 15 %.
    torch.manual_seed(0)
    network.set_noise(CircuitNoise.predicted(PARAMS))
    in_torch = np.stack([logits_with_fresh_noise(network) for _ in range(10)]).std(axis=0)
    network.set_noise(None)
    rng = np.random.default_rng(0)
    simulated = np.stack([simulate.run(program, PARAMS, IMAGES, rng) for _ in range(10)]).std(axis=0)
    assert in_torch.mean() == pytest.approx(simulated.mean(), rel=0.15)


def logits_with_fresh_noise(network: Network) -> NDArray[np.float32]:
    with torch.no_grad():
        result: NDArray[np.float32] = network(torch.tensor(IMAGES).float() / 255).numpy()
    return result


def test_the_scales_use_the_torus(program: Program) -> None:
    logit_turns = np.abs(simulate.plain(program, IMAGES)) * program.logit_delta
    assert 0.3 < logit_turns.max() < 0.5


def test_look_ups_follow_the_topology(program: Program) -> None:
    assert [(stage.layer.kind, stage.lookups) for stage in program.stages if stage.lookups] == [
        ("max_pool", 4 * 16 * 3),
        ("relu", 4 * 16),
        ("relu", 5 * 16),
        ("relu", 12),
    ]


def test_split_takes_a_part() -> None:
    split = Split(images=IMAGES, labels=np.arange(64))
    assert split.part(10, 14).labels.tolist() == [10, 11, 12, 13]
