"""Networks of the exact profile: integers in training are the integers of the Program."""

import numpy as np
import pytest
import torch

from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import params
from ciphershift.models.compiler.export_exact import export_exact
from ciphershift.models.nn.exact import ExactNetwork, SparseConvSpec, SparseDenseSpec, SparseTernary, whole

CLASSES = tuple("abcd")


@pytest.fixture
def network() -> ExactNetwork:
    """Random weights, statistics of one batch, small moduli so that sums wrap."""
    torch.manual_seed(4)
    network = ExactNetwork(
        (1, 12, 12),
        (
            SparseConvSpec(maps=4, kernel=3, stride=2, padding=1, pool=2, nonzeros=7),
            SparseConvSpec(maps=5, kernel=2, nonzeros=9),
            SparseDenseSpec(units=12, nonzeros=11),
        ),
        head_nonzeros=6,
        modulus=16,
        logit_modulus=32,
        levels=3,
        pixel_levels=3,
        classes=len(CLASSES),
    )
    network.quantize(True)
    with torch.no_grad():
        network.bias.uniform_(-4, 4)
        for block in network.stages():
            block.offset.uniform_(-1, 1)
        network.train()
        for _ in range(80):
            network(torch.rand(64, 1, 12, 12))
    network.eval()
    return network


def test_every_logit_of_the_program_is_the_trained_networks(network: ExactNetwork) -> None:
    program = export_exact(network, name="n", version="1", params="TOY_EXACT_N512", classes=CLASSES)
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 12, 12), dtype=np.uint8)
    with torch.no_grad():
        wanted = network(torch.tensor(images).float() / 255) / network.logit_scale
    integers = simulate.plain(program, images)
    assert np.array_equal(integers, np.rint(wanted.detach().numpy()))
    assert len(np.unique(integers)) > 10
    logits = integers.copy()
    unwrapped = program.layers[-1].combine(last_activations(program, images)) + program.layers[-1].bias  # type: ignore[attr-defined]
    assert (np.abs(unwrapped - logits) % program.layers[-1].modulus == 0).all()


def last_activations(program, images):
    values = program.input.integers(images)
    for layer in program.layers[:-1]:
        values = layer.plain(values)
    return values.astype(np.float64)


def test_simulated_noise_of_a_fitting_set_changes_no_logit(network: ExactNetwork) -> None:
    program = export_exact(network, name="n", version="1", params="EXACT_N2048", classes=CLASSES)
    exact = params.get("EXACT_N2048")
    noise_budget.require_exact(program, exact)
    images = np.random.default_rng(1).integers(0, 256, (100, 1, 12, 12), dtype=np.uint8)
    noisy = simulate.run(program, exact, images, np.random.default_rng(2)) / program.output.scale
    assert np.array_equal(np.rint(noisy), simulate.plain(program, images))


def test_a_row_of_sparse_ternary_weights_has_the_signs_of_its_greatest() -> None:
    torch.manual_seed(0)
    weights = SparseTernary((6, 3, 2, 2), 5)
    weights.quantized = True
    integers = weights().detach()
    assert torch.equal(integers.abs().flatten(1).sum(1), torch.full((6,), 5.0))
    kept = integers != 0
    real = weights.weight.detach()
    for row in range(6):
        assert real[row][kept[row]].abs().min() > real[row][~kept[row]].abs().max()
    assert torch.equal(torch.sign(real)[kept], integers[kept])


def test_gradients_pass_the_roundings(network: ExactNetwork) -> None:
    x = torch.tensor([0.2, 1.5, -0.7], requires_grad=True)
    whole(x).sum().backward()
    assert torch.equal(whole(x).detach(), torch.tensor([0.0, 2.0, -1.0]))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(3))
    network.train()
    network(torch.rand(8, 1, 12, 12)).square().sum().backward()
    for block in network.stages():
        assert block.weights.weight.grad is not None
        assert block.weights.weight.grad.abs().sum() > 0
