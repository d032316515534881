"""Odd but legal modules are converted as what they compute, or refused with a finding: never another value, never a traceback."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.errors import (
    BadCalibrationError,
    CiphershiftError,
    ConfigurationError,
    NotEquivalentError,
    UnsupportedLayerError,
)
from ciphershift.models.compiler import head
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.models.cost_report import check
from tests.support.architectures import Net


def net(compute: Callable[..., object], **parts: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return Net(compute, **({"a": nn.Linear(6, 8), "head": nn.Linear(8, 3)} | parts))


class Counting(nn.Module):
    """Counts its calls in a buffer, and changes its input in place."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x -= 0.5
        logits: Tensor = self.head(F.relu(self.first(x)))
        return logits


class Named(nn.Module):
    """Parts whose names are those that conversion would give to its own steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.outputs, self.fc_a, self.fc, self.proj_a, self.proj = (nn.Linear(6, 6) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.outputs(x))
        x = F.relu(self.fc(F.relu(self.fc_a(x.view(-1, 2, 3).flatten(1)))))
        return torch.as_tensor(self.proj(x) + self.proj_a(x))


EQUAL: dict[str, Callable[[], nn.Module]] = {
    "a number for each sample": lambda: net(lambda s, x: s.one(F.relu(s.a(x))).squeeze(-1), one=nn.Linear(8, 1)),
    "a number without a look-up": lambda: net(lambda s, x: s.one(x).squeeze(-1), one=nn.Linear(6, 1)),
    "a function of the input": lambda: net(lambda s, x: s.one(torch.tanh(x)), one=nn.Linear(6, 2)),
    "in place": Counting,
    "names": Named,
    "mask by comparison": lambda: net(lambda s, x: s.head(F.relu(s.a(x)) * (x[:, :1] > 0.5))),
    "a comparison returned": lambda: net(lambda s, x: s.head(F.relu(s.a(x))) > 0),
    "double for a moment": lambda: net(lambda s, x: s.head(F.relu((s.a(x).double() * 2).float()))),
}
REFUSED: dict[str, Callable[[], nn.Module]] = {
    "int": lambda: net(lambda s, x: s.head(F.relu(s.a((x * 10).int().float())))),
    "long, hidden by a constant": lambda: net(lambda s, x: s.head(F.relu(s.a(x)).long() + 5000.0)),
    "two comparisons": lambda: net(lambda s, x: s.head(((s.a(x) > 0) & (s.a(x) < 1)).float())),
    "table by index": lambda: net(lambda s, x: s.head(torch.rand(9, 8)[s.a(x).argmax(1)])),
    "value that decides": lambda: net(lambda s, x: s.head(s.a(x)) * x.max().item()),
    "not yet initialized": lambda: net(lambda s, x: s.lazy(F.relu(s.a(x))), lazy=nn.LazyLinear(3)),
    "too many values": lambda: net(lambda s, x: s.wide(F.relu(s.a(x))), wide=nn.Linear(8, 1500)),
}


@pytest.mark.parametrize("name", EQUAL)
def test_it_is_converted_as_what_it_computes(name: str) -> None:
    module, samples = EQUAL[name]().eval(), torch.rand(150, 6)
    network = before_rounding(module, samples.clone(), levels=255, max_outside=1e-3).network
    with torch.no_grad():
        expected, found = module(samples.clone()).float().reshape(150, -1), network(samples)
    assert found.shape == expected.shape
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.std())


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_finding(name: str) -> None:
    with pytest.raises(UnsupportedLayerError, match="cannot be converted"):
        convert(REFUSED[name]().eval(), torch.rand(150, 6))
    assert check(REFUSED[name]().eval(), (6,)).findings


def test_sorted_data_do_not_hide_a_step_that_is_read_wrongly() -> None:
    """The first samples are whole numbers, for which the step that is not read changes nothing."""

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if torch.compiler.is_exporting() else torch.round(x)

    module = nn.Sequential(Wrong(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    samples = torch.cat([torch.zeros(100, 6), torch.ones(50, 6), torch.rand(150, 6)])
    with pytest.raises(NotEquivalentError):
        convert(module, samples)


def test_a_great_constant_hides_no_wrong_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in bringing linear steps together, of a size that is nothing beside the constant."""
    matrix = head._matrix

    def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
        weight, bias = matrix(*arguments)
        return 1.3 * weight, bias

    monkeypatch.setattr(head, "_matrix", wrong)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)).eval()
    bias = module[1].bias
    assert isinstance(bias, Tensor)
    nn.init.constant_(bias, 1990.0)
    with pytest.raises(NotEquivalentError, match="differs in output"):
        convert(module, torch.rand(150, 6))


def test_a_public_part_of_a_module_with_two_outputs() -> None:
    def two(s: Any, x: Tensor) -> dict[str, Tensor]:
        y = F.relu(s.a(x))
        return {"a": s.head(y), "b": s.b(y)}

    module = net(two, b=nn.Linear(8, 2)).eval()
    network = convert(module, torch.rand(150, 6), public="a")
    assert network.stem is not None
    assert [part.name for part in network.parts] == ["a", "b"]


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"levels": 0}, "levels=0"),
        ({"levels": 1000}, "1 to 255"),
        ({"exponents": 8}, "1 to 7"),
        ({"max_outside": -1.0}, "max_outside"),
        ({"params": "nope"}, "nope"),
    ],
)
def test_choices_out_of_range_are_named(choices: dict[str, object], says: str) -> None:
    with pytest.raises(CiphershiftError, match=says):
        convert(net(lambda s, x: s.head(F.relu(s.a(x)))).eval(), torch.rand(150, 6), **choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [None, [1, "a"], np.array(["x"])])
def test_other_data_than_numbers_are_refused(data: object) -> None:
    with pytest.raises(BadCalibrationError):
        convert(net(lambda s, x: s.head(F.relu(s.a(x)))).eval(), data)  # type: ignore[arg-type]


def test_data_with_negative_strides_are_taken() -> None:
    data = np.random.default_rng(0).random((150, 6))[:, ::-1]
    assert convert(net(lambda s, x: s.head(F.relu(s.a(x)))).eval(), data).input_shape == (6,)


def test_a_deviation_without_a_mean_counts() -> None:
    raw = np.random.default_rng(0).normal(0, 20, (200, 6))
    encoding = fit_encoding(raw, origin=(0.0,) * 6)
    module = net(lambda s, x: s.head(F.relu(s.a(x)))).eval()
    zeros: list[dict[str, Any]] = [{}, {"mean": (0.0,) * 6}]
    alone, both = (
        before_rounding(module, raw, inputs=Inputs(encoding=encoding, std=(20.0,) * 6, **mean)).network
        for mean in zeros
    )
    with torch.no_grad():
        images = torch.tensor(alone.inputs.bytes_of(raw)).float() / 255
        assert torch.equal(alone(images), both(images))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean": (0.0, 0.0), "std": (1.0,)}, "2 means and 1"),
        ({"std": (1.0, 0.0)}, "feature 1"),
        ({"levels": 0}, "0 levels"),
    ],
)
def test_a_normalization_that_cannot_be_is_named(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Inputs(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a great constant", "a small output"])
def test_an_output_behind_look_ups_that_noise_would_drown_is_refused(name: str) -> None:
    factor = torch.tensor([100.0, 100.0, 0.05]) if name == "a small output" else torch.ones(3)
    constant = 1990.0 if name == "a great constant" else 0.0
    module = net(lambda s, x: s.head(F.relu(s.a(x))) * factor + constant).eval()
    with pytest.raises(NotEquivalentError, match="outputs of their own"):
        convert(module, torch.rand(150, 6))
    parts = net(lambda s, x: {str(i): s.head(F.relu(s.a(x)))[:, i : i + 1] * factor[i] for i in range(3)}).eval()
    assert len(convert(parts, torch.rand(150, 6)).parts) == 3
