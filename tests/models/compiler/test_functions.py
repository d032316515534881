"""Any function of one number is one look-up: it is the module's function before rounding, and its Program computes it, encrypted, too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.errors import BadCalibrationError, ProgramError
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.network import Network
from ciphershift.models.cost_report import check
from ciphershift.models.nn.activations import LookUp
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import fine_tune
from ciphershift.models.training.phase import Phase
from tests.support.agreement import require_one_noise


class Own(nn.Module):
    """A function as users write them."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


FUNCTIONS: dict[str, nn.Module] = {
    "LeakyReLU": nn.LeakyReLU(0.1),
    "PReLU": nn.PReLU(6),
    "ELU": nn.ELU(),
    "CELU": nn.CELU(0.7),
    "SELU": nn.SELU(),
    "GELU": nn.GELU(),
    "GELU by tanh": nn.GELU("tanh"),
    "SiLU": nn.SiLU(),
    "Mish": nn.Mish(),
    "Hardswish": nn.Hardswish(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Sigmoid": nn.Sigmoid(),
    "LogSigmoid": nn.LogSigmoid(),
    "Tanh": nn.Tanh(),
    "Softsign": nn.Softsign(),
    "Softplus": nn.Softplus(beta=2.0),
    "Hardtanh": nn.Hardtanh(0.2, 0.8),
    "Hardshrink": nn.Hardshrink(0.3),
    "Softshrink": nn.Softshrink(0.3),
    "Tanhshrink": nn.Tanhshrink(),
    "Threshold": nn.Threshold(0.1, -0.5),
    "clamp from above": Own(lambda x: x.clamp(max=0.3)),
    "abs": Own(torch.abs),
    "square": Own(torch.square),
    "power": Own(lambda x: x**3),
    "exp": Own(torch.exp),
    "log on a stated range": Own(lambda x: torch.log(x.clamp(0.1, 3))),
    "where": Own(lambda x: torch.where(x > 0.2, x, 0.5 * x * x)),
    "x sigmoid(x)": Own(lambda x: x * torch.sigmoid(1.7 * x)),
    "hardswish by hand": Own(lambda x: x * F.relu6(x + 3) / 6),
    "a user's own": Own(lambda x: torch.sin(3 * x) / (1 + x**2) + 0.1 * x),
}


class All(nn.Module):
    """Every function of the same six sums, side by side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sums, self.norm = nn.Linear(8, 6), nn.BatchNorm1d(6)
        assert self.norm.running_var is not None
        self.norm.running_var.fill_(0.05)  # numbers of both signs, of order one
        self.functions = nn.ModuleDict(FUNCTIONS)
        for part in self.functions.parameters():
            nn.init.uniform_(part, -0.3, 0.5)
        self.head = nn.Linear(6 * len(FUNCTIONS), 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.sums(x))
        return self.head(torch.cat([function(x) for function in self.functions.values()], dim=1))


PIXELS = np.random.default_rng(0).integers(0, 256, (300, 8), dtype=np.uint8)
SAMPLES = torch.tensor(PIXELS).float() / 255


@pytest.fixture(scope="module")
def network() -> Network:
    """`convert` holds every function against the module's own."""
    network = convert(All().eval(), SAMPLES, levels=255).eval()
    network.noise = None
    return network


def test_every_function_of_one_number_is_one_look_up() -> None:
    module = All().eval()
    network = before_rounding(module, SAMPLES, levels=255).network
    with torch.no_grad():
        expected, found = module(SAMPLES).numpy(), network(SAMPLES).numpy()
    # With so many levels only results beyond the 99.9 % quantile, which are cut off, are left as an error.
    assert np.abs(found - expected).mean() < 0.01 * expected.std()
    report = check(module, (8,), params="TOY_N128")
    assert report.cost is not None
    assert report.cost.lookups == 6 * len(FUNCTIONS)


def test_the_tables_of_the_program_are_the_functions(network: Network) -> None:
    seen: dict[str, Tensor] = {}
    for step, node in network.steps():
        if isinstance(node, LookUp):
            node.register_forward_hook(lambda node, inputs, result, name=step.name: seen.update({name: result}))
    with torch.no_grad():
        logits_in_torch = network(SAMPLES).numpy()
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    integers = program.input.integers(PIXELS)
    for stage, values in program.traverse(
        integers, lambda parts: np.concatenate(parts, axis=1), lambda stage, x: stage.layer.plain(x)
    ):
        if stage.layer.kind == "look_up":
            # A table has 256 steps, and its integers are 255 at most: those of a neighbor where it does not jump.
            assert np.quantile(np.abs(values - seen[stage.layer.name].numpy()), 0.95) <= 2, stage.layer.name
    assert len(seen) == len(FUNCTIONS)
    assert np.abs(values * program.output.scale - logits_in_torch).mean() < 0.02 * logits_in_torch.std()


def test_functions_are_evaluated_encrypted_and_trained(tmp_path: Path) -> None:
    """Two samples, three logits each, within 6.5 deviations of 200 simulated runs; training in torch sees the simulation's noise."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), Own(torch.square), nn.Linear(6, 3)
    )
    network = convert(body, SAMPLES, params="TOY_N128")
    split = Split(images=PIXELS, labels=PIXELS[:, :3].argmax(1).astype(np.int64))
    phase = Phase(epochs=8, learning_rate=5e-3, frozen=0.25, distortion=0.0, batch=30)
    losses: list[float] = []
    fine_tune(
        network,
        split,
        None,
        phase=phase,
        checkpoint=tmp_path / "c.pt",
        report=lambda after: losses.append(after.loss),
    )
    assert losses[-1] < losses[0] - 0.02
    program = export(network, name="p", version="1", params="TOY_N128", classes=("a", "b", "c"))
    require_one_noise(network, program, SAMPLES, PIXELS)


def test_a_function_without_a_value_is_an_error_that_names_it() -> None:
    body = nn.Sequential(nn.Linear(8, 6), Own(torch.log), nn.Linear(6, 3))
    with pytest.raises(BadCalibrationError, match=r"^1: .* has no finite value for \d+ of .* numbers.*torch.clamp"):
        convert(body, SAMPLES)


def test_a_function_of_two_values_is_a_finding() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.atan2(self.a(x), self.b(x)))

    findings = check(Two(), (8,), params="TOY_N128").findings
    assert "function of several encrypted values" in findings[0].problem


def test_an_activation_that_clips_nearly_everything_is_converted_as_it_is() -> None:
    """Sums of 20 times the range that is not clipped."""
    torch.manual_seed(0)
    first = nn.Linear(8, 6)
    with torch.no_grad():
        first.weight.mul_(60)
        first.bias.sub_(first.weight.sum(1) / 2)
    body = nn.Sequential(first, nn.Hardtanh(0.0, 1.0), nn.Linear(6, 3)).eval()
    network = before_rounding(body, SAMPLES, levels=255).network
    with torch.no_grad():
        assert torch.allclose(network(SAMPLES), body(SAMPLES), atol=1e-3)


def small(activation: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    """One dense layer of two outputs, an activation, one more."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), activation, nn.Linear(2, 2)).eval()
    with torch.no_grad():
        for parameter, value in zip(module[1].parameters(), (weight, bias), strict=True):
            parameter.copy_(value)
    return module


def test_a_channel_that_hardly_varies_is_not_clipped() -> None:
    """Its inputs lie far from the middle of the ramp: the whole ramp must fit into the window, however little they vary."""
    weight = torch.tensor([[0.02, -0.01, 0.01, 0.02], [-0.01, 0.02, 0.01, -0.02]])
    module = small(nn.Hardtanh(-1.0, 1.0), weight, torch.tensor([-0.7, 0.6]))
    data = torch.rand(200, 4, 1, 1, generator=torch.Generator().manual_seed(1))
    network = before_rounding(module, data).network
    with torch.no_grad():
        assert (network(data) - module(data)).abs().max() < 1e-3


def test_inputs_that_no_window_holds_are_refused() -> None:
    weight = torch.tensor([[2e-5, -1e-5, 1e-5, 2e-5], [-1e-5, 2e-5, 1e-5, -2e-5]])
    module = small(nn.Hardtanh(-1.0, 1.0), weight, torch.tensor([-0.7, 0.6]))
    with pytest.raises(BadCalibrationError, match=r"would be clipped .* put a batch norm before it"):
        convert(module, torch.rand(200, 4, 1, 1, generator=torch.Generator().manual_seed(1)))


def test_a_function_that_is_undefined_on_its_ramp_after_training_is_refused() -> None:
    module = small(Own(lambda x: torch.log(x)), torch.rand(2, 4), torch.ones(2))
    network = convert(module, torch.rand(200, 4, 1, 1)).eval()
    network.quantize(True)
    (node,) = network.of_type(LookUp)
    node.low.fill_(-100.0)  # as a training could move it
    with pytest.raises(ProgramError, match="no finite value"):
        export(network, name="n", version="1", params="TOY_N128", classes=("a", "b"))
