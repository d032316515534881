"""What a module returns: several outputs, maps, averages of logits; softmax and sigmoid are computed by whoever decrypts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciphershift.errors import BadShapeError, ProgramError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import OutputSpec, Program
from ciphershift.models.compiler import answers
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.inputs import Logits
from ciphershift.models.compiler.network import Network
from ciphershift.models.cost_report import check
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import fine_tune
from ciphershift.protocol.outputs import OUTPUTS, Part, separated, slices

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 8), dtype=np.uint8)
SAMPLES = torch.tensor(PIXELS).float() / 255


@pytest.mark.parametrize(
    ("last", "name"),
    [(nn.Softmax(dim=1), "softmax"), (nn.LogSoftmax(dim=-1), "log_softmax"), (nn.Sigmoid(), "sigmoid")],
)
def test_the_end_of_the_module_is_left_to_the_client(last: nn.Module, name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    module = nn.Sequential(body, last).eval()
    network = before_rounding(module, SAMPLES, levels=255, exponents=7).network
    with torch.no_grad():
        expected, found = module(SAMPLES), network(SAMPLES)
        assert (
            np.abs(OUTPUTS[name](found.double().numpy()) - expected.numpy()).mean() < 0.005
        )  # a ReLU clips few values
        of_given, of_logits = (
            OUTPUTS[name](x.double().numpy()) for x in (Logits(module, name)(SAMPLES), body(SAMPLES))
        )
        assert np.allclose(of_given, of_logits, atol=1e-5)
    network.quantize(True)
    program = export(network, name="p", version="1", params="FAST_N512", classes=("a", "b", "c"))
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.output.function == name
    assert loaded.digest == program.digest
    assert simulate.plain(loaded, PIXELS).shape == (90, 3)


def test_anywhere_else_it_is_a_finding() -> None:
    body = nn.Sequential(nn.Linear(8, 6), nn.Softmax(dim=1), nn.Linear(6, 3))
    (finding, *_) = check(body, (8,), params="TOY_N128").findings
    assert "softmax is not supported" in finding.problem
    assert "only at the end" in finding.instead
    with pytest.raises(ProgramError, match="'tanh'; known are softmax"):
        OutputSpec(classes=("a",), scale=1.0, function="tanh")


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]])
    assert OUTPUTS["softmax"](logits).tolist() == [[1.0, 0.0, 0.0]]
    assert OUTPUTS["sigmoid"](logits).tolist() == [[1.0, 0.5, 0.0]]
    assert OUTPUTS["log_softmax"](logits)[0, 2] == -2000.0


RNG = np.random.default_rng(1)
IMAGES = (RNG.integers(0, 256, (100, 1, 8, 8)) * RNG.random((100, 1, 1, 1))).astype(
    np.uint8
)  # dark ones and bright ones
UNIT = torch.tensor(IMAGES).float() / 255


class Pair(NamedTuple):
    """Two outputs, as modules of libraries have them."""

    sex: Tensor
    age: Tensor


class Net(nn.Module):
    """A convolution, and what is made of its result."""

    def __init__(self, end: Callable[["Net", Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.end = nn.Conv2d(1, 4, 3, padding=1), end
        self.sex, self.age, self.map, self.rows = (
            nn.Linear(64, 3),
            nn.Linear(4, 1),
            nn.Conv2d(4, 2, 3, padding=1),
            nn.Linear(8, 2),
        )
        with torch.no_grad():
            self.age.weight.mul_(0.01)  # beside the others next to nothing
            self.age.bias.zero_()

    def forward(self, x: Tensor) -> Any:
        return self.end(self, F.relu(self.conv(x)))

    def of_sex(self, x: Tensor) -> Tensor:
        logits: Tensor = self.sex(F.max_pool2d(x, 2).flatten(1))
        return logits

    def of_age(self, x: Tensor) -> Tensor:
        years: Tensor = self.age(x.mean((2, 3)))
        return years


ENDS: dict[str, tuple[Callable[[Net, Tensor], Any], dict[str, tuple[tuple[int, ...], str | None]]]] = {
    "dict": (
        lambda s, x: {"sex": s.of_sex(x).softmax(1), "age": s.of_age(x), "map": s.map(x)},
        {"sex": ((3,), "softmax"), "age": ((1,), None), "map": ((2, 8, 8), None)},
    ),
    "tuple": (lambda s, x: (s.of_sex(x), s.of_age(x)), {"output0": ((3,), None), "output1": ((1,), None)}),
    "named tuple": (
        lambda s, x: Pair(s.of_sex(x), s.of_age(x).sigmoid()),
        {"sex": ((3,), None), "age": ((1,), "sigmoid")},
    ),
    "nested": (
        lambda s, x: {"a": [s.of_sex(x), s.of_age(x)], "b": s.of_age(x)},
        {"a.0": ((3,), None), "a.1": ((1,), None), "b": ((1,), None)},
    ),
    "one twice": (lambda s, x: (lambda y: [y, y])(s.of_sex(x)), {"output0": ((3,), None), "output1": ((3,), None)}),
    "a map": (lambda s, x: s.map(x), {"": ((2, 8, 8), None)}),
    "average of a map": (lambda s, x: F.adaptive_avg_pool2d(s.map(x), 1).flatten(1), {"": ((2,), None)}),
    "sum of heads": (lambda s, x: 0.5 * s.of_sex(x) + s.of_age(x) - 1, {"": ((3,), None)}),
    "rows": (lambda s, x: s.rows(x.mean(1)), {"": ((8, 2), None)}),
    "an activation": (lambda s, x: torch.tanh(s.of_sex(x)), {"": ((3,), None)}),
}


def returned(module: nn.Module, samples: Tensor) -> dict[str, np.ndarray]:
    """What a module returns, by the names that a network has for it."""
    with torch.no_grad():
        found = module(samples)
    if isinstance(found, Tensor):
        return {"": found.numpy()}
    if isinstance(found, dict) and "a" in found:
        return {"a.0": found["a"][0].numpy(), "a.1": found["a"][1].numpy(), "b": found["b"].numpy()}
    items = (
        found.items()
        if isinstance(found, dict)
        else (found._asdict().items() if isinstance(found, Pair) else ((f"output{i}", v) for i, v in enumerate(found)))
    )
    return {name: value.numpy() for name, value in items}


@pytest.mark.parametrize("end", list(ENDS))
def test_whatever_is_returned_is_the_modules(end: str, tmp_path: Path) -> None:
    """`convert` holds all outputs against the module's before rounding; ends of ramps, which clip few values, are all that may differ."""
    make, expected = ENDS[end]
    module = Net(make).eval()
    network = before_rounding(module, UNIT, levels=255, exponents=7, max_outside=2e-3).network
    assert {part.name: (part.shape, part.function) for part in network.parts} == expected
    with torch.no_grad():
        values = separated(network.parts, network(UNIT).double().numpy())
    for name, given in returned(module, UNIT).items():
        mine = values[name] if isinstance(values, dict) else values
        function = expected[name][1]
        mine = OUTPUTS[function](mine) if function else mine
        assert np.abs(mine - given).mean() < 0.1 * given.std() + 1e-6, name
    network.quantize(True)
    classes = {name: tuple(map(str, range(shape[0]))) for name, (shape, _) in expected.items()}
    program = export(network, name="p", version="1", params="FAST_N512", classes=classes)
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert (loaded.output, loaded.digest) == (program.output, program.digest)
    plain = simulate.plain(loaded, IMAGES[:40]) * loaded.output.scales
    with torch.no_grad():
        rounded = network(UNIT[:40]).numpy()
    for part, place in slices(network.parts):
        # Biases become integers, and each output is in units of its own, so that this costs the smallest one no more than the others.
        assert np.abs(plain - rounded)[:, place].mean() < 0.1 * rounded[:, place].std() + 1e-6, part.name


def test_names_of_values_are_given_by_output() -> None:
    network = convert(Net(ENDS["dict"][0]).eval(), UNIT)
    names = {"sex": ("f", "m", "x"), "age": ("years",), "map": ("road", "field")}
    program = export(network.eval(), name="p", version="1", params="FAST_N512", classes=names)
    assert program.output.classes[:5] == ("f", "m", "x", "years", "road[0,0]")
    assert program.output.parts is not None
    assert [part.name for part in program.output.parts] == ["sex", "age", "map"]
    for wrong, what in (
        (("a", "b"), "names are given for ''; the network returns 'sex', 'age', 'map'"),
        (names | {"age": ("a", "b")}, r"'age' has the shape \(1,\) and 2 names; give 1"),
    ):
        with pytest.raises(BadShapeError, match=what):
            export(network, name="p", version="1", params="FAST_N512", classes=wrong)
    for change in (answers.top_one, lambda p: answers.quantized(p, 15)):
        with pytest.raises(ProgramError, match="several outputs"):
            change(program)
    with pytest.raises(ProgramError, match="a name of its own"):
        OutputSpec(classes=("a", "b"), scale=1.0, parts=(Part(name="a", shape=(1,)),) * 2)
    with pytest.raises(ProgramError, match="3 names"):
        OutputSpec(classes=("a", "b", "c"), scale=1.0, parts=(Part(name="a", shape=(2,)),))


def test_labels_are_for_one_vector(tmp_path: Path) -> None:
    split = Split(images=IMAGES, labels=np.zeros(100, dtype=np.int64))
    for end in ("dict", "a map"):
        network = convert(Net(ENDS[end][0]).eval(), UNIT)
        with pytest.raises(BadShapeError, match="labels are for one vector"):
            fine_tune(network, split, None, checkpoint=tmp_path / "c.pt")


def test_a_loop_of_ones_own_trains_several_outputs() -> None:
    """Weights that there are not stay away, and every output comes nearer to what it should be."""
    module = Net(ENDS["dict"][0]).eval()
    network = convert(module, UNIT, params="TOY_N128")
    assert isinstance(network, Network)
    wanted = torch.tensor(np.concatenate([v.reshape(100, -1) for v in returned(module, UNIT).values()], axis=1))
    wanted[:, :3] = wanted[:, :3].clamp_min(1e-7).log()
    spread = wanted.std(0) + 0.05  # some hardly vary, and would be noise alone

    def loss() -> Tensor:
        return ((network(UNIT) - wanted) / spread).pow(2).mean()

    before = float(loss().detach())
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        step = loss()
        step.backward()
        optimizer.step()
    assert float(loss().detach()) < 0.5 * before
    assert network.head.linear.mask is not None
    assert not network.head.linear.integer_weight()[~network.head.linear.mask].any()


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (lambda s, x: {"a": s.of_sex(x), "b": x.shape[0]}, "not all of which are tensors"),
        (lambda s, x: (s.of_sex(x), torch.ones(3, 3)), "does not depend on the input"),
        (lambda s, x: s.map(F.interpolate(x, scale_factor=4.0)), "returns 2048 values"),
    ],
)
def test_what_cannot_be_returned_is_a_finding(end: Callable[[Net, Tensor], Any], problem: str) -> None:
    findings = check(Net(end), (1, 8, 8), params="TOY_N128").findings
    assert any(problem in finding.problem for finding in findings), findings
    with pytest.raises(UnsupportedLayerError, match=problem):
        convert(Net(end), UNIT)


def test_a_bias_that_no_integer_holds_beside_its_weights_is_refused() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.out(torch.relu(self.hidden(x.flatten(1)))) * 0 + 3.0)

    torch.manual_seed(0)
    network = convert(Constant(), torch.rand(200, 1, 4, 4)).eval()
    with pytest.raises(ProgramError, match="take the constant out"):
        export(network, name="constant", version="1", params="FAST_N512_PAIRS", classes=("a", "b", "c"))
