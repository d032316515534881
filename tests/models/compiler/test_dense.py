"""Modules without an activation: one dense layer, no look-up."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciphershift import convert, export
from ciphershift.errors import NotEquivalentError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import noise_budget
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Dense
from ciphershift.he_layers.program import Program
from ciphershift.models.compiler.inputs import Inputs, fit_encoding

PARAMS = "FAST_N512_BLOCK3"
PIXELS = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kind, self.age = nn.Linear(64, 3), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        flat = x.flatten(1)
        return {"kind": self.kind(flat), "age": 50 + 30 * self.age(flat)}


MODULES = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    "normalized": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)),
    "two linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Dropout(), nn.Linear(20, 4)),
    "a map": lambda: nn.Conv2d(1, 2, 3, stride=2),
    "two outputs": TwoOutputs,
}


def exported(module: nn.Module, samples: Tensor, inputs: Inputs | None = None) -> Program:
    network = convert(module, samples, params=PARAMS, inputs=inputs).eval()
    names = {part.name: tuple(f"{part.name}{i}" for i in range(int(np.prod(part.shape)))) for part in network.parts}
    return export(network, name="dense", version="1", params=PARAMS, classes=names)


@pytest.mark.parametrize("kind", MODULES)
def test_a_module_without_activations_is_one_dense_layer(kind: str) -> None:
    torch.manual_seed(0)
    module = MODULES[kind]().eval()
    program = exported(module, PIXELS)
    assert program.lookups == 0 and isinstance(program.layers[-1], Dense)
    images = (PIXELS[:50] * 255).round().to(torch.uint8)
    with torch.no_grad():
        returned = module(images / 255)
    if isinstance(returned, dict):
        returned = torch.cat([returned["kind"], returned["age"]], 1)
    wanted = (returned.log() if kind == "normalized" else returned).flatten(1).numpy()
    found = simulate.run(program, parameter_sets.get(PARAMS), images.numpy(), np.random.default_rng(0))
    if kind == "normalized":  # logits up to a constant
        wanted, found = (x - x.mean(1, keepdims=True) for x in (wanted, found))
    for column, value in zip(found.T, wanted.T, strict=True):
        assert np.abs(column - value).max() < 0.03 * np.ptp(wanted, axis=0).max() + 1e-3 * np.abs(value).max()


def test_raw_values_are_weighed_in_their_own_ranges() -> None:
    torch.manual_seed(0)
    raw = torch.rand(400, 3) * torch.tensor([1.0, 100.0, 5.0]) - torch.tensor([0.5, 0.0, 20.0])
    module = nn.Linear(3, 2)
    inputs = Inputs(encoding=fit_encoding(raw))
    program = exported(module, raw, inputs)
    assert program.lookups == 0
    with torch.no_grad():
        wanted = module(raw[:100]).numpy()
    found = simulate.plain(program, inputs.bytes_of(raw[:100].numpy())) * program.output.scales
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999


def test_no_input_leaves_the_torus() -> None:
    torch.manual_seed(0)
    program = exported(MODULES["linear"](), PIXELS)
    dense = program.layers[-1]
    assert isinstance(dense, Dense)
    worst = np.where(dense.weight > 0, 255, 0).astype(np.uint8).reshape(-1, 1, 8, 8)
    sums = simulate.plain(program, worst) * program.input.delta
    assert 0.1 < np.abs(sums).max() <= 0.49


def test_the_input_beside_results_of_look_ups_is_refused_as_before() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out, self.direct = nn.Linear(64, 8), nn.Linear(8, 3), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return torch.as_tensor(self.out(torch.relu(self.hidden(flat))) + self.direct(flat))

    with pytest.raises(UnsupportedLayerError, match="results of look-ups beside it"):
        convert(Beside(), PIXELS)


@pytest.mark.parametrize("kind", ["linear", "convolution", "two linear"])
def test_weights_are_rounded_as_much_as_encryption_rounds_the_input(kind: str) -> None:
    torch.manual_seed(0)
    module = MODULES[kind]().eval()
    program = exported(module, PIXELS)
    images = (PIXELS * 255).round().to(torch.uint8)
    with torch.no_grad():
        rounding = simulate.plain(program, images.numpy()) * program.output.scale - module(images / 255).numpy()
    (logits,) = noise_budget.of_program(program, parameter_sets.get(PARAMS))
    assert 0.3 < rounding.std(axis=0).mean() / (logits.std_dev * program.turns_to_logits) < 3


def test_answers_have_the_noise_of_the_input_and_hardly_any_of_their_own() -> None:
    torch.manual_seed(0)
    program, parameter_set = exported(MODULES["linear"](), PIXELS), parameter_sets.get(PARAMS)
    once = replace(program, output=replace(program.output, refinement=None))
    (fine,), (coarse,) = (noise_budget.of_program(each, parameter_set) for each in (program, once))
    assert coarse.std_dev == pytest.approx(2**-12, rel=0.2)
    assert fine.std_dev < coarse.std_dev / 8


@pytest.mark.parametrize("weight", [0.0, 1e-4])
def test_outputs_that_an_answer_would_drown_are_refused(weight: float) -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.out(x.flatten(1)) * weight + 3.0)

    with pytest.raises(NotEquivalentError, match="take a great constant out of the module"):
        convert(Moved(), PIXELS)


def test_training_keeps_the_range_of_all_inputs() -> None:
    torch.manual_seed(0)
    network = convert(MODULES["linear"](), PIXELS, params=PARAMS).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(5):
        loss = nn.functional.cross_entropy(network(PIXELS), torch.arange(300) % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    names = tuple("0123456789")
    assert export(network.eval(), name="trained", version="1", params=PARAMS, classes=names).lookups == 0


def test_the_noise_budget_of_logits_is_what_is_simulated() -> None:
    torch.manual_seed(0)
    program = exported(MODULES["linear"](), PIXELS)
    (stage,) = noise_budget.of_program(program, parameter_sets.get(PARAMS))
    images = np.zeros((4000, 1, 8, 8), dtype=np.uint8)
    found = simulate.run(program, parameter_sets.get(PARAMS), images, np.random.default_rng(0)) / program.output.scales
    errors = (found - simulate.plain(program, images)) * program.logit_delta
    assert stage.layer == "logits"
    dense = program.layers[-1]
    assert isinstance(dense, Dense)
    loudest = np.linalg.norm(dense.weight.astype(np.float64), axis=1).argmax()
    assert errors[:, loudest].std() == pytest.approx(stage.std_dev, rel=0.06)  # 4000 samples, five deviations
