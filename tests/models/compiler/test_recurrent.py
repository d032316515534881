"""Recurrent networks: read step by step, with one set of weights, statistics and tables for all steps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciphershift.errors import BadCalibrationError, BadShapeError, ProgramError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.layers import Linear
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.recurrence import certificates
from ciphershift.models.compiler.answers import top_one
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.models.compiler.network import Network
from ciphershift.models.nn.activations import Activation, ReLU
from ciphershift.models.nn.recurrent import LIMIT, Recurrent, Steps, contracted
from ciphershift.models.nn.shift import ShiftWeights
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import fine_tune
from ciphershift.models.training.phase import Phase
from ciphershift.protocol.sequences import padded

STEPS, FEATURES, UNITS = 3, 2, 4
TOY = "TOY_N128"


class Net(nn.Module):
    """A recurrent layer and a dense one on its last state, all states or their mean; ``first``: steps are the first axis."""

    def __init__(self, layer: nn.Module, reads: str = "last", width: int = UNITS, *, first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.reads, self.first = layer, reads, first
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, steps, features] -> [B, 2]."""
        if self.first:
            _, last = self.layer(x.transpose(0, 1))
            logits: Tensor = self.head(last[-1])
            return logits
        states = self.layer(x)
        states = states[0] if isinstance(states, tuple) else states
        read = {"last": lambda: states[:, -1], "all": lambda: states.flatten(1), "mean": lambda: states.mean(1)}
        result: Tensor = self.head(read[self.reads]())
        return result


class Loop(nn.Module):
    """A cell of torch in a loop of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(FEATURES, UNITS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, steps, features] -> states."""
        state = x.new_zeros(x.shape[0], UNITS)
        states = []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            states.append(state)
        return torch.stack(states, dim=1)


def _samples(steps: int = STEPS) -> Tensor:
    return torch.rand(60, steps, FEATURES, generator=torch.Generator().manual_seed(1))


def _converted(module: nn.Module, steps: int = STEPS) -> Network:
    return convert(module.eval(), _samples(steps), params=TOY)


def _calibrated(module: nn.Module, steps: int = STEPS) -> Network:
    """As it is before rounding."""
    return before_rounding(module.eval(), _samples(steps), params=TOY).network


def _program(network: Network) -> Program:
    return export(network.eval(), name="steps", version="1", params=TOY, classes=("a", "b"))


def _contractive() -> Net:
    """With inputs that move the states over their whole range, as a trained network's do."""
    torch.manual_seed(0)
    layer = Recurrent(FEATURES, UNITS)
    with torch.no_grad():
        layer.input.weight.mul_(4)
    return Net(layer)


def _in_different_units() -> Net:
    """Contractive, with inputs of very different sizes: the ramps of some states are shortened, so that their levels are worth less."""
    torch.manual_seed(1)
    layer = Recurrent(FEATURES, UNITS)
    with torch.no_grad():
        layer.input.weight.mul_(torch.logspace(-0.5, 0.6, UNITS)[:, None])
    return Net(layer)


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def _unrounded(network: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = network.eval()(x)
    network.quantize(True)
    return result


def _require_computed(network: Network, module: nn.Module, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Samples and what the module gives for them, which the network gives, too; rounds its integers from then on.

    Only results beyond the ends of the tables differ: convert has held every step against the module's, exactly.
    """
    x = (_samples(steps) * 255).round() / 255
    with torch.no_grad():
        wanted = module(x)
    assert (_unrounded(network, x) - wanted).abs().mean() < 0.2 * wanted.std()
    return x, wanted


def _saved(network: Network, folder: Path) -> Program:
    """Exported, saved and loaded again."""
    program = _program(network)
    program.save(folder)
    loaded = Program.load(folder)
    assert loaded.digest == program.digest and loaded.recurrent == program.recurrent
    return loaded


MODULES = {
    "relu": lambda: Net(nn.RNN(FEATURES, UNITS, nonlinearity="relu", batch_first=True)),
    "tanh, steps first": lambda: Net(nn.RNN(FEATURES, UNITS), first=True),
    "two layers and directions, all states": lambda: Net(
        nn.RNN(FEATURES, UNITS, num_layers=2, bidirectional=True, batch_first=True), "all", 2 * UNITS * STEPS
    ),
    "mean of the states": lambda: Net(nn.RNN(FEATURES, UNITS, batch_first=True), "mean"),
    "a loop of cells": lambda: Net(Loop()),
    "a contractive layer": lambda: Net(Recurrent(FEATURES, UNITS)),
}


@pytest.mark.parametrize("name", MODULES)
def test_all_steps_are_one_layer_and_compute_what_the_module_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    network = _calibrated(module)
    layers = 4 if name.startswith("two") else 1
    weights = sum(1 for _ in network.of_type(ShiftWeights))
    assert weights == 2 * layers + 1, "by the input and by the state, and the head"
    x, _ = _require_computed(network, module)
    loaded = _saved(network, tmp_path)
    held = {id(layer.weight) for layer in loaded.layers if isinstance(layer, Linear)}
    own = [layer for layer in loaded.layers if isinstance(layer, Linear) and layer.shares is None]
    assert len(held) == len(own) < sum(isinstance(layer, Linear) for layer in loaded.layers)
    assert sum(layer.kind in ("relu", "look_up") and layer.shares is None for layer in loaded.layers) == layers
    images = (x.numpy() * 255).round().astype(np.uint8)
    with torch.no_grad():
        trained = network(torch.tensor(images).float() / 255).numpy()
    assert np.allclose(simulate.plain(loaded, images) * loaded.output.scale, trained, atol=2 * loaded.output.scale * 40)


@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_sequences_of_every_length_and_of_one_step_more(steps: int) -> None:
    torch.manual_seed(0)
    program = _program(_converted(Net(nn.RNN(FEATURES, UNITS, batch_first=True)), steps))
    assert program.lookups == steps * UNITS
    images = (_samples(steps).numpy() * 255).round().astype(np.uint8)
    noisy = simulate.run(program, parameter_sets.get(TOY), images, np.random.default_rng(0))
    assert noisy.shape == (60, 2) and np.isfinite(noisy).all()
    with pytest.raises(BadShapeError, match="the program takes"):
        program.integers(np.zeros((1, steps + 1, FEATURES), dtype=np.uint8))


def test_a_network_of_padded_sequences_says_so_and_is_calibrated_on_such() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    whole = padded([rng.uniform(-1, 1, (2, own)) for own in rng.integers(1, 5, 60)], 4)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = Inputs(encoding=fit_encoding(whole), sequences=True)
    program = _program(convert(module, whole, params=TOY, inputs=inputs))
    assert program.input.sequences and program.input.shape == (3, 4)
    for wrong in (whole[:, ::-1].copy(), whole[:, :, ::-1].copy(), whole[:, 0]):
        with pytest.raises(BadCalibrationError, match=r"sequences.padded makes them"):
            convert(module, wrong, params=TOY, inputs=replace(inputs, encoding=fit_encoding(wrong)))


@pytest.mark.parametrize(
    ("layer", "options", "width"),
    [(nn.LSTM, {}, 3), (nn.GRU, {}, 3), (nn.LSTM, {"proj_size": 2}, 2), (nn.LSTM, {"proj_size": 2, "bias": False}, 2)],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # of torch, when the module itself runs
def test_gated_layers_are_products(layer: type[nn.RNNBase], options: dict[str, Any], width: int) -> None:
    torch.manual_seed(0)
    module = Net(layer(FEATURES, 3, batch_first=True, **options), width=width).eval()  # type: ignore[arg-type]
    x = (_samples(2) * 255).round() / 255
    network = _calibrated(module, 2)
    with torch.no_grad():
        wanted = module(x)
    assert (_unrounded(network, x) - wanted).abs().mean() < 0.2 * wanted.std()


class Own(nn.Module):
    """A cell of one's own: ``step`` makes a state of sums and of the state before; the first one is made of sums alone."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.step, self.input, self.state = step, nn.Linear(FEATURES, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, steps, features] -> states."""
        states = [torch.sigmoid(self.input(x[:, 0]))]
        for number in range(1, x.shape[1]):
            states.append(self.step(self.input(x[:, number]) + self.state(states[-1]), states[-1]))
        return torch.stack(states, dim=1)


@pytest.mark.parametrize(
    ("layer", "width", "weights", "functions"),
    [
        pytest.param(nn.LSTM(FEATURES, 3, batch_first=True), 3, 12, 11, id="LSTM"),
        pytest.param(nn.LSTM(FEATURES, 3, batch_first=True, bias=False), 3, 12, 11, id="LSTM without biases"),
        pytest.param(nn.LSTM(FEATURES, 3, batch_first=True, proj_size=2), 2, 14, 13, id="LSTM with a projection"),
        pytest.param(nn.LSTM(FEATURES, 3, 2, batch_first=True), 3, 23, 22, id="LSTM of two layers"),
        pytest.param(nn.GRU(FEATURES, 3, batch_first=True), 3, 12, 7, id="GRU"),
        pytest.param(nn.GRU(FEATURES, 3, batch_first=True, bias=False), 3, 11, 7, id="GRU without biases"),
    ],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_gated_steps_are_one_layer(layer: nn.Module, width: int, weights: int, functions: int, tmp_path: Path) -> None:
    """With the products: linear layers, among them the head and the negatives that products take, and functions, once for all steps."""
    torch.manual_seed(0)
    for values in layer.parameters():
        nn.init.uniform_(values, -1, 1)
    module = Net(layer, width=width).eval()
    network = _calibrated(module)
    assert sum(1 for _ in network.of_type(ShiftWeights)) == weights
    assert sum(1 for _ in network.of_type(Activation)) == functions
    x, wanted = _require_computed(network, module)
    loaded = _saved(network, tmp_path)
    assert sum(layer.kind == "look_up" and layer.shares is None for layer in loaded.layers) == functions
    images = (x.numpy() * 255).round().astype(np.uint8)
    with torch.no_grad():
        trained = network(torch.tensor(images).float() / 255).numpy()
    apart = np.abs(simulate.plain(loaded, images) * loaded.output.scale - trained)
    assert apart.mean() < 0.1 * wanted.std(), "where a table's step rounds to the other side"


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda sums, state: state + torch.tanh(sums), id="added to the state"),
        pytest.param(lambda sums, state: state * torch.sigmoid(sums), id="times the state"),
        pytest.param(
            lambda sums, state: torch.tanh(sums) * torch.sigmoid(sums - state), id="two functions of the sums"
        ),
        pytest.param(lambda sums, state: torch.sigmoid(sums) + 0.5 * state * state, id="a square"),
    ],
)
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_cells_of_ones_own_compute_what_the_module_computes(
    step: Callable[[Tensor, Tensor], Tensor], steps: int
) -> None:
    torch.manual_seed(0)
    module = Net(Own(step), width=3).eval()
    network = _calibrated(module, steps)
    _require_computed(network, module, steps)
    _program(network)  # layers that share arrays have the same ones, or it is refused


@pytest.mark.parametrize(
    ("layer", "biases", "first"),
    [
        pytest.param(nn.LSTM(FEATURES, UNITS, batch_first=True), [0.0, 1e-4, -0.5, 0.3], 0.0, id="LSTM"),
        pytest.param(nn.GRU(FEATURES, UNITS, batch_first=True), [0.0, 1e-4, -0.5, 0.3], 0.0, id="GRU"),
        pytest.param(
            nn.GRU(FEATURES, UNITS, batch_first=True), [0.0] * UNITS, 1.0, id="GRU without a bias of the state"
        ),
    ],
)
def test_gated_steps_are_one_where_steps_see_little(layer: nn.Module, biases: list[float], first: float) -> None:
    """Padded sequences begin with zeros: scales are not those of the first step. Nor do biases of zero have any."""
    module = Net(layer).eval()
    with torch.no_grad():
        for values in layer.parameters():
            nn.init.uniform_(values, -1, 1)
        dict(layer.named_parameters())["bias_hh_l0"][-UNITS:] = torch.tensor(biases)
    x = torch.rand(100, 5, FEATURES, generator=torch.Generator().manual_seed(1))
    x[:, 0] *= first
    x = (x * 255).round() / 255
    with torch.no_grad():
        wanted = module(x)
    network = convert(module, x, params=TOY).eval()
    network.noise = None
    with torch.no_grad():
        assert (network(x) - wanted).std() < 0.35 * wanted.std(), "with rounded weights"


class Gated(nn.Module):
    """A recurrent layer with a sigmoid of its input in its sums, and, if it is ``gated``, one of its states."""

    def __init__(self, *, gated: bool) -> None:
        super().__init__()
        self.input, self.other = nn.Linear(FEATURES, UNITS), nn.Linear(FEATURES, UNITS)
        self.gated = gated
        self.state, self.gate = (nn.Linear(UNITS, UNITS, bias=False) for _ in range(2))
        for values in self.parameters():
            nn.init.uniform_(values, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, steps, features] -> states."""
        states: list[Tensor] = []
        for step in x.unbind(1):
            sums = self.input(step) + torch.sigmoid(self.other(step))
            if states:
                sums = sums + self.state(states[-1])
            if states and self.gated:
                sums = sums + torch.sigmoid(self.gate(states[-1]))
            states.append(torch.tanh(sums))
        return torch.stack(states, dim=1)


@pytest.mark.parametrize("gated", [False, True])
def test_states_that_are_read_in_two_ways_have_no_certificate(gated: bool) -> None:
    torch.manual_seed(0)
    program = _program(_converted(Net(Gated(gated=gated)), 5))
    assert len(program.recurrent) == (0 if gated else 1)


def test_a_first_state_of_the_users_own_is_part_of_the_network() -> None:
    class Begun(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.RNN(FEATURES, UNITS, batch_first=True), nn.Linear(UNITS, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.layer(x, torch.ones(1, x.shape[0], UNITS))[0][:, -1])
            return logits

    torch.manual_seed(0)
    module = Begun().eval()
    x = (_samples() * 255).round() / 255
    with torch.no_grad():
        wanted = module(x)
    assert (_unrounded(_calibrated(module), x) - wanted).abs().mean() < 0.2 * wanted.std()


def test_training_keeps_a_contractive_network_so_and_its_program_states_it() -> None:
    network = _converted(_contractive())
    assert network.contractive and not network.state_weights
    program = _program(_contracted(network))
    (certificate,) = program.recurrent
    assert 0.5 < certificate.norm <= 0.951 and certificate.weights == ()
    assert certificate.error_bound == pytest.approx(1 / (1 - certificate.norm))
    _states_forget(program)


def test_the_last_state_alone_may_have_another_amplitude(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = _program(_converted(Net(nn.RNN(FEATURES, UNITS), first=True)))
    other = top_one(program)
    other.save(tmp_path)
    assert Program.load(tmp_path).recurrent == program.recurrent
    steps = np.random.default_rng(0).integers(0, program.input.levels + 1, (60, *program.input.shape), dtype=np.uint8)
    plain, winner = simulate.plain(program, steps), simulate.plain(other, steps)
    assert (plain.argmax(axis=1) == winner.argmax(axis=1)).mean() > 0.9
    assert (winner.sum(axis=1) == 1).all()


def test_a_module_that_is_contractive_stays_so_where_its_states_have_levels_of_different_values(tmp_path: Path) -> None:
    module = _in_different_units()
    unrounded = before_rounding(module.eval(), _samples(), params=TOY)
    network = unrounded.network
    (gain,), (weights,), (units,) = network.gains().values(), network.state_weights.values(), unrounded.units.values()
    assert torch.equal(weights, units / units.max()) and float(weights.max()) == 1 > 2 * float(weights.min())
    assert network.contractive and _norm(gain) == pytest.approx(LIMIT, rel=1e-3), "as the module's own"
    network = _contracted(_converted(module))
    program = _program(network)
    (certificate,), (plain,) = program.recurrent, certificates(program)
    assert certificate.weights == tuple(weights.tolist())
    assert 0.5 < certificate.norm <= 0.951 and plain.norm > 1.1
    _states_forget(program)
    program.save(tmp_path)
    assert Program.load(tmp_path).recurrent == program.recurrent


def test_training_keeps_states_of_different_values_contractive(tmp_path: Path) -> None:
    network = _converted(_in_different_units())
    (gain,) = network.gains().values()
    assert _norm(gain) > 0.96, "rounding has made the norm greater"
    images = (_samples().numpy() * 255).round().astype(np.uint8)
    train = Split(images=images, labels=np.arange(len(images)) % 2)
    phase = Phase(epochs=2, learning_rate=1e-3, distortion=0, batch=30)
    fine_tune(network, train, None, checkpoint=tmp_path / "network.pt", phase=phase)
    (certificate,) = _program(network).recurrent
    assert certificate.weights and 0.5 < certificate.norm <= 0.951


def test_a_step_of_training_keeps_what_does_not_add_to_the_norm() -> None:
    """Of unrounded weights, which follow every step: all singular values but those above the limit, and their directions."""
    network = before_rounding(_in_different_units().eval(), _samples(), params=TOY).network
    ((name, weights),) = ((name, network.node(name)) for name in network.gains())
    with torch.no_grad():
        weights.weight[0].mul_(1.5)  # type: ignore[index]
    gain = network.gains()[name]
    values = torch.linalg.svdvals(gain)
    assert float(values[0]) > 1.2 and float(values[1]) < LIMIT * 1.001
    assert not network.contract()
    assert torch.allclose(network.gains()[name], contracted(gain, LIMIT), atol=1e-5)
    with torch.no_grad():
        weights.weight.mul_(1.5)  # type: ignore[operator]
    gain = network.gains()[name]
    assert not network.contract(last=True)
    assert torch.allclose(network.gains()[name], gain * LIMIT / _norm(gain), atol=1e-5)


def test_weights_are_for_norms_that_are_smaller_with_them() -> None:
    network = _contracted(_converted(_contractive()))
    program = _program(network)
    network.state_weights = {name: torch.logspace(0, -1, UNITS) for name in network.gains()}
    assert _program(network).recurrent == program.recurrent


def test_a_module_that_is_not_contractive_has_no_weights() -> None:
    module = _in_different_units()
    with torch.no_grad():
        module.layer.state.weight.mul_(1.2)  # type: ignore[union-attr, operator]
    network = _converted(module)
    assert not network.contractive and not network.state_weights
    assert _program(network).recurrent[0].weights == ()


def _contracted(network: Network) -> Network:
    """After a step of training that made the recurrent weights greater."""
    (weights,) = (network.node(name) for name in network.gains())
    with torch.no_grad():
        weights.weight.mul_(1.3)  # type: ignore[operator]
    for _ in range(100):
        if network.contract(last=True):
            break
    return network


def _states_forget(program: Program) -> None:
    """Two states differ by no more than the norm, and a rounding each, one step later: on the real layers of the program."""
    (certificate,) = program.recurrent
    weights = np.array(certificate.weights or np.ones(UNITS))
    stages = {stage.layer.name: stage for stage in program.stages}
    table = next(s for s in program.stages if s.layer.kind == "relu" and s.layer.shares)
    total = stages[table.sources[0]]
    linear = next(
        stages[n] for n in total.sources if stages[n].layer.shares is None and stages[n].sources != ("image",)
    )
    rng = np.random.default_rng(0)
    first = rng.integers(0, 32, (200, UNITS))
    second = np.clip(first + rng.integers(-4, 5, first.shape), 0, 31)
    after = [table.layer.plain(linear.layer.plain(states)) for states in (first, second)]
    distance = np.linalg.norm(weights * (after[0] - after[1]), axis=1)
    before = np.linalg.norm(weights * (first - second), axis=1)
    assert (distance <= certificate.norm * before + np.linalg.norm(weights)).all()


def test_a_program_whose_weights_do_not_give_its_certificate_is_refused(tmp_path: Path) -> None:
    _program(_converted(_contractive())).save(tmp_path)
    text = (tmp_path / "program.json").read_text()
    start = text.index('"norm": ') + 8
    (tmp_path / "program.json").write_text(text[:start] + "0.5" + text[text.index(",", start) :])
    with pytest.raises(ProgramError, match="export it again"):
        Program.load(tmp_path)


def test_arrays_are_shared_with_a_layer_before_that_has_the_same() -> None:
    torch.manual_seed(0)
    program = _program(_converted(Net(nn.RNN(FEATURES, UNITS, batch_first=True))))
    first = next(layer for layer in program.layers if layer.kind == "linear")
    with pytest.raises(ProgramError, match="cannot share"):
        program.layers[-1].sharing(first)
    tables = [layer for layer in program.layers if layer.kind == "look_up"]
    other = replace(tables[1], shares=None, bias=tables[1].bias + 1)  # type: ignore[call-arg, attr-defined]
    with pytest.raises(ProgramError, match="has others"):
        other.sharing(tables[0])
    with pytest.raises(ProgramError, match="no layer before it"):
        replace(program, layers=tuple(layer for layer in program.layers if layer is not tables[0]))


def test_a_step_whose_batch_is_elsewhere_is_a_finding() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.RNN(FEATURES, UNITS), nn.Linear(UNITS, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(torch.relu(self.layer(x.transpose(0, 1))[0]).mean(0))
            return logits

    with pytest.raises(UnsupportedLayerError, match="batch on another axis"):
        _converted(Wrong())


class Written(nn.Module):
    """A ReLU layer of four states as a user writes it, five steps of three features; ``reads`` makes of all states what the head takes."""

    def __init__(self, reads: Callable[[list[Tensor]], Tensor], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.states, self.reads = nn.Linear(4, 4, bias=False), reads
        self.states.weight.data *= 0.8
        self.inputs, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = [torch.relu(self.inputs(x[:, :, 0]))]
        for step in range(1, 5):
            found.append(torch.relu(self.inputs(x[:, :, step]) + self.states(found[-1])))
        logits: Tensor = self.head(self.reads(found))
        return logits


@pytest.mark.parametrize(
    ("reads", "seed"),
    [(lambda s: s[-1], 19), (lambda s: s[-1] + s[-2], 149), (lambda s: sum(s[1:], s[0]) / 5, 149)],
)
def test_no_ramp_is_shortened_where_its_sums_lie(reads: Callable[[list[Tensor]], Tensor], seed: int) -> None:
    """The sums of all steps share one scale, here above what the activation alone would ask for: results would count in another unit."""
    module = Written(reads, seed).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (160, 3, 5), dtype=np.uint8)
    samples = torch.tensor(pixels).float() / 255
    network = before_rounding(module, samples, levels=255, max_outside=1e-3, params="FAST_N512").network
    with torch.no_grad():
        expected, found = module(samples).numpy(), network(samples).numpy()
    assert np.abs(found - expected).mean() < 0.01 * expected.std(axis=0).mean()


@pytest.mark.parametrize("seed", [2, 9])
def test_a_ramp_of_all_steps_is_shortened_once(seed: int) -> None:
    """Units of very different sizes, of which one's ramp is too long for the torus: afterwards it just fits, and no more."""
    torch.manual_seed(seed)
    layer = Recurrent(6, 12)
    with torch.no_grad():
        layer.input.weight.mul_(torch.logspace(-0.7, 0.5, 12)[:, None])
        layer.input.bias.fill_(0.2)
    module = nn.Sequential(Steps(), layer, nn.Flatten(), nn.Linear(12 * 8, 4)).eval()
    network = convert(module, torch.rand(200, 1, 8, 6), inputs=Inputs(levels=15))
    (ramp,) = network.of_type(ReLU)
    torus = network.torus()
    sums = [step.inputs[0] for step, node in network.steps() if node is ramp]
    lengths = torch.stack([ramp.top.detach() * ramp.std * torus.turns(name) for name in sums])
    assert 0.7 < float(lengths.max()) / ramp.max_ramp < 1.01


def test_rows_are_read_several_at_a_time() -> None:
    image = torch.arange(24.0).view(1, 2, 4, 3)
    assert Steps(2)(image)[0, 1].tolist() == [6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23]
    assert Steps()(image)[0, 3].tolist() == [9, 10, 11, 21, 22, 23]
    for samples in (image, torch.rand(1, 2, 4)):
        with pytest.raises(RuntimeError, match="shape"):
            Steps(3)(samples)
