"""A user's module becomes a network that computes the same, and a Program that computes what the network computes, encrypted, too."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ciphershift.errors import ProgramError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.analysis import windows
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.program import Program
from ciphershift.he_layers.simulate import CircuitNoise
from ciphershift.models import verification
from ciphershift.models.compiler import calibration, equivalence
from ciphershift.models.compiler.convert import before_rounding, convert
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.network import Network
from ciphershift.models.cost_report import check
from ciphershift.models.nn import activations
from ciphershift.models.nn.activations import ReLU
from ciphershift.models.nn.shift import ShiftWeights
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import fine_tune, logits
from ciphershift.models.training.phase import Phase
from tests.support.networks import Branches, Plain, Residual, settled

PARAMS = parameter_sets.get(parameter_sets.DEFAULT)
IMAGES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (200, 3, 12, 12), dtype=np.uint8)
CALIBRATION = torch.tensor(IMAGES).float() / 255
MAKERS = {"plain": Plain, "residual": Residual, "branches": Branches}


@pytest.fixture(scope="module", params=list(MAKERS))
def module(request: pytest.FixtureRequest) -> nn.Module:
    torch.set_num_threads(1)
    return settled(MAKERS[request.param])


@pytest.fixture(scope="module")
def network(module: nn.Module) -> Network:
    return convert(module, CALIBRATION, params="TOY_N128", max_outside=0.01)


@pytest.fixture(scope="module")
def tuned(module: nn.Module, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Trained for a moment on what the module says, so that every part has been through it."""
    labels = logits(module, IMAGES).argmax(1).astype(np.int64)
    split = Split(images=IMAGES, labels=labels)
    phase = Phase(epochs=30, learning_rate=5e-3, frozen=0.25, distortion=0.0, batch=40)
    fine_tune(network, split, split, phase=phase, checkpoint=tmp_path_factory.mktemp("tuned") / "c.pt")
    return network


@pytest.fixture(scope="module")
def program(tuned: Network) -> Program:
    return export(tuned, name="small", version="1", params="TOY_N128", classes=("a", "b", "c"))


def clear(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits without noise."""
    noise, network.noise = network.noise, None
    found = logits(network, images)
    network.noise = noise
    return found


def test_before_rounding_the_network_is_the_module(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the end of the ramps, which is moved away here."""
    monkeypatch.setattr("ciphershift.models.compiler.calibration.CLIPPED", 1.0)
    monkeypatch.setattr(activations.ReLU, "max_ramp", 1e6)
    network = before_rounding(module, CALIBRATION).network
    assert np.abs(clear(network, IMAGES) - logits(module, IMAGES)).max() < 1e-3


@pytest.mark.parametrize("relative", [1e-7, -2e-7, 4e-7])
def test_the_last_bit_of_a_sum_decides_nothing(relative: float) -> None:
    """Two activations are added here: their ramps are powers of two, and a ramp that fits must not fall to the next lower one."""
    module = settled(Residual)
    first, second = (before_rounding(module, data).network for data in (CALIBRATION, CALIBRATION * (1 + relative)))
    assert np.abs(clear(first, IMAGES) - clear(second, IMAGES)).max() < 1e-3


def test_the_module_itself_is_left_as_it_was(module: nn.Module) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    convert(module, CALIBRATION)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_program_is_the_network(tuned: Network, program: Program) -> None:
    expected = clear(tuned, IMAGES)
    found = simulate.plain(program, IMAGES) * program.output.scale
    # Biases become integers and float32 sums may fall on the other side of a rounding: few activations move by one level of 31.
    assert np.abs(found - expected).mean() < 0.05 * expected.std()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_a_constant_beside_which_the_weights_are_nothing_is_refused(tuned: Network) -> None:
    network = deepcopy(tuned)
    relu = next(network.of_type(ReLU))
    relu.mean.fill_(1e12)
    with pytest.raises(ProgramError, match="units of its weights, which are next to nothing beside it"):
        export(network, name="far", version="1", params="TOY_N128", classes=("a", "b", "c"))


def test_both_see_the_same_noise(tuned: Network, program: Program) -> None:
    # Standard deviation of the logits around their mean over 30 images, 12 runs each: equal to 15 %.
    images = IMAGES[:30]
    toy = parameter_sets.get("TOY_N128")
    torch.manual_seed(0)
    with torch.no_grad():
        in_torch = np.stack([tuned(CALIBRATION[:30]).numpy() for _ in range(12)]).std(axis=0)
    rng = np.random.default_rng(0)
    simulated = np.stack([simulate.run(program, toy, images, rng) for _ in range(12)]).std(axis=0)
    assert in_torch.mean() == pytest.approx(simulated.mean(), rel=0.15)


def test_encrypted_logits_are_the_simulated_ones(program: Program) -> None:
    # Two images, three logits each, compared with mean and deviation of 400 simulated runs: within five deviations.
    toy, rng = parameter_sets.get("TOY_N128"), np.random.default_rng(1)
    runs = np.stack([simulate.run(program, toy, IMAGES[:2], rng) for _ in range(400)])
    encrypted = np.stack(list(verification.encrypted_logits(program, IMAGES[:2], threads=1)))
    assert np.abs((encrypted - runs.mean(axis=0)) / runs.std(axis=0)).max() < 5


def test_check_counts_the_look_ups_of_the_program(module: nn.Module, program: Program) -> None:
    report = check(module, (3, 12, 12), params="TOY_N128")
    assert report.cost is not None
    assert report.cost.lookups == program.lookups
    assert report.findings == ()


def test_the_network_learns_under_noise(module: nn.Module, tuned: Network) -> None:
    # Three classes, about as frequent as each other, of images of noise: chance has a loss of ln 3, and so has the untrained network.
    labels = torch.tensor(logits(module, IMAGES).argmax(1))
    untrained = convert(module, CALIBRATION, params="TOY_N128", max_outside=0.01).eval()
    untrained.quantize(True)
    before, after = (
        functional.cross_entropy(torch.tensor(logits(network, IMAGES)), labels) for network in (untrained, tuned)
    )
    assert before == pytest.approx(np.log(3), abs=0.05)
    assert after < np.log(3) - 0.05


@pytest.mark.parametrize("exponents", [1, 2, 5])
def test_the_number_of_exponents_is_a_choice(exponents: int) -> None:
    network = convert(settled(Plain), CALIBRATION, exponents=exponents)
    program = export(network.eval(), name="p", version="1", params=PARAMS.name, classes=("a", "b", "c"))
    allowed = {0.0, *(2.0**e for e in range(exponents))}
    sizes = {size for layer in network.of_type(ShiftWeights) for size in layer.integer_weight().abs().unique().tolist()}
    assert sizes <= allowed
    assert max(sizes) >= max(allowed) / 2
    assert simulate.plain(program, IMAGES[:2]).shape == (2, 3)


def test_a_conversion_keeps_the_window_that_was_asked_for() -> None:
    module = settled(Residual)
    shares, drives = [], []
    for max_outside in (1e-3, 1e-2):
        network = convert(module, CALIBRATION, max_outside=max_outside)
        program = export(network.eval(), name="p", version="1", params=PARAMS.name, classes=("a", "b", "c"))
        watched = windows.measure(program, PARAMS, IMAGES, np.random.default_rng(0))
        shares.append(max(window.outside for window in watched))
        drives.append(sum(float(a.drive) for a in network.of_type(ReLU)))
    assert shares[0] < 5e-3
    assert drives[0] < drives[1]


@pytest.mark.parametrize("kind", ["inverted", "noise"])
def test_images_from_elsewhere_clip_and_do_not_wrap(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrated on dark images with a bright stroke; inverted ones and noise push sums far beyond what was seen."""
    strokes = np.zeros((200, 3, 12, 12), np.uint8)
    for index, stroke in enumerate(strokes):
        stroke[:, :, index % 10 : index % 10 + 2] = 200 + index % 50
    other = 255 - strokes if kind == "inverted" else IMAGES
    network = convert(settled(Plain), torch.tensor(strokes).float() / 255)
    program = export(network.eval(), name="p", version="1", params=PARAMS.name, classes=("a", "b", "c"))
    for window in windows.measure(program, PARAMS, other, np.random.default_rng(0)):
        assert window.outside < 0.02, window
    network.noise = None
    # windows as wide as those are refused, or warned of
    monkeypatch.setattr(calibration, "CLIPPING", replace(equivalence.CLIPPING, ordinary=-1.0))
    wide = export(
        convert(settled(Plain), CALIBRATION, max_outside=0.5).eval(),
        name="w",
        version="1",
        params=PARAMS.name,
        classes=("a", "b", "c"),
    )
    assert max(window.outside for window in windows.measure(wide, PARAMS, 255 - IMAGES, np.random.default_rng(0))) > 0.1


def test_the_noise_is_that_of_the_parameter_set() -> None:
    assert convert(settled(Plain), CALIBRATION).noise == CircuitNoise.predicted(PARAMS)


def test_what_cannot_be_converted_is_listed_at_once() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(400, 3), nn.LayerNorm(3))
    with pytest.raises(UnsupportedLayerError, match=r"1: group_norm.*4: layer_norm"):
        convert(module, CALIBRATION)


def test_programs_survive_their_files(program: Program, tmp_path: Path) -> None:
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.digest == program.digest
    assert np.array_equal(simulate.plain(loaded, IMAGES[:5]), simulate.plain(program, IMAGES[:5]))
