"""relu(x) and relu(-x), joined, are one look-up: converted as the module computes them, exported, encrypted, trained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.he_layers import simulate
from ciphershift.he_layers.layers import CReLU
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.cost_report import check
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import fine_tune
from ciphershift.models.training.phase import Phase
from tests.support.agreement import require_one_noise
from tests.support.architectures import Net


def both(x: Tensor) -> Tensor:
    return torch.cat([F.relu(x), F.relu(-x)], 1)


def normed(channels: int) -> nn.Module:
    made = nn.BatchNorm2d(channels)
    nn.init.uniform_(made.weight, -1.5, 1.5)
    nn.init.uniform_(made.bias, -0.3, 0.3)
    return made


def images(part: Callable[..., Tensor], size: int, **modules: nn.Module) -> nn.Module:
    return Net(lambda s, x: s.head(part(s, x).flatten(1)), head=nn.Linear(size, 3), **modules)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "conv": (lambda: images(lambda s, x: both(s.a(x)), 192, a=nn.Conv2d(2, 6, 3, 2, 1)), (2, 8, 8), 96),
    "norm between": (
        lambda: images(lambda s, x: both(s.b(s.a(x))), 192, a=nn.Conv2d(2, 6, 3, 2, 1), b=normed(6)),
        (2, 8, 8),
        96,
    ),
    "the negative first, capped": (
        lambda: images(
            lambda s, x: (lambda y: torch.cat([F.relu6(-y), F.relu6(y)], 1))(s.a(x)), 192, a=nn.Conv2d(2, 6, 3, 2, 1)
        ),
        (2, 8, 8),
        96,
    ),
    "convolved, pooled": (
        lambda: images(
            lambda s, x: F.max_pool2d(both(s.b(both(s.a(x)))), 2),
            32,
            a=nn.Conv2d(2, 4, 3, 2, 1),
            b=nn.Conv2d(8, 4, 3, 1, 1),
        ),
        (2, 8, 8),
        64 + 2 * (3 * 16 + 16),  # a pool for each sign, before its ReLU
    ),
    "added to its input": (
        lambda: images(
            lambda s, x: F.relu(s.b(both(s.a(x))) + x), 72, a=nn.Conv2d(2, 3, 3, padding=1), b=nn.Conv2d(6, 2, 1)
        ),
        (2, 6, 6),
        3 * 36 + 72,
    ),
    "series": (lambda: images(lambda s, x: both(s.a(x)), 60, a=nn.Conv1d(2, 3, 3)), (2, 12), 30),
    "vector": (lambda: Net(lambda s, x: s.b(both(s.a(x))), a=nn.Linear(6, 9), b=nn.Linear(18, 3)), (6,), 9),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "other caps": lambda y: torch.cat([F.relu6(y), F.relu(-y)], 1),
    "another value": lambda y: torch.cat([F.relu(y), F.relu(-y.flip(1))], 1),
    "half of it": lambda y: torch.cat([F.relu(y), F.relu(-0.5 * y)], 1),
    "read once more": lambda y: (lambda a: torch.cat([a + 0.5 * y, F.relu(-y)], 1))(F.relu(y)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_the_module_and_its_program_the_network(name: str) -> None:
    make, shape, lookups = NETWORKS[name]
    module = make().eval()
    report = check(module, shape)
    assert report.cost is not None and report.cost.lookups == sum(step.lookups for step in report.steps) == lookups
    pixels = np.random.default_rng(0).integers(0, 256, (120, *shape), dtype=np.uint8)
    samples = torch.tensor(pixels).float() / 255
    network = before_rounding(module, samples, levels=255, max_outside=1e-3).network
    with torch.no_grad():
        expected, found = module(samples).numpy(), network(samples).numpy()
        assert np.abs(found - expected).mean() < 0.05 * expected.std()
        network.quantize(True)
        rounded = network(samples).numpy()
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    assert any(isinstance(layer, CReLU) for layer in program.layers)
    assert program.lookups == lookups
    plain = simulate.plain(program, pixels) * program.output.scale
    assert np.abs(plain - rounded).mean() < 0.05 * rounded.std()


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_it_is_two_look_ups(name: str) -> None:
    module = images(lambda s, x: OTHERS[name](s.a(x)), 192, a=nn.Conv2d(2, 6, 3, 2, 1)).eval()
    samples = torch.rand(120, 2, 8, 8)
    network = before_rounding(module, samples, levels=255, max_outside=1e-3).network
    with torch.no_grad():
        expected, found = module(samples).numpy(), network(samples).numpy()
    assert np.abs(found - expected).mean() < 0.05 * expected.std()
    network.quantize(True)
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    assert not any(isinstance(layer, CReLU) for layer in program.layers)


def test_capped_ones_in_a_sum_are_two_look_ups() -> None:
    """A sum asks for units that are powers of two, in which a cap of six is none."""
    torch.manual_seed(0)
    module = Net(
        lambda s, x: (lambda z: s.head(torch.cat([F.relu6(z), F.relu6(-z)], 1) + F.relu(s.b(x))))(20 * s.a(x)),
        a=nn.Linear(6, 4),
        b=nn.Linear(6, 8),
        head=nn.Linear(8, 3),
    ).eval()
    samples = torch.rand(200, 6)
    network = before_rounding(module, samples, levels=255).network
    with torch.no_grad():
        expected, found = module(samples).numpy(), network(samples).numpy()
    assert np.abs(found - expected).mean() < 0.05 * expected.std()


def test_it_is_trained_with_the_noise_of_the_simulation_and_evaluated_encrypted(tmp_path: Path) -> None:
    """Two samples, three logits each, within 6.5 deviations of 200 simulated runs; both results of a look-up share its input noise."""
    torch.set_num_threads(1)
    make, shape, _ = NETWORKS["norm between"]
    pixels = np.random.default_rng(1).integers(0, 256, (300, *shape), dtype=np.uint8)
    samples = torch.tensor(pixels).float() / 255
    network = convert(make().eval(), samples, params="TOY_N128")
    labels = pixels.reshape(300, -1)[:, :3].argmax(1).astype(np.int64)
    losses: list[float] = []
    fine_tune(
        network,
        Split(images=pixels, labels=labels),
        None,
        phase=Phase(epochs=8, learning_rate=5e-3, frozen=0.25, distortion=0.0, batch=30),
        checkpoint=tmp_path / "c.pt",
        report=lambda after: losses.append(after.loss),
    )
    assert losses[-1] < losses[0] - 0.02
    program = export(network, name="p", version="1", params="TOY_N128", classes=("a", "b", "c"))
    require_one_noise(network, program, samples, pixels)
