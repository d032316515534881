"""A module is cut into a public part, which becomes an ONNX file, and the rest, which is converted and trained on what it gives."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from ciphershift.errors import BadStemError, NotEquivalentError, UnsupportedLayerError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import Program
from ciphershift.models.compiler.convert import convert
from ciphershift.models.compiler.inputs import Inputs, fit_encoding
from ciphershift.models.compiler.judge import Judge
from ciphershift.models.compiler.network import Network
from ciphershift.models.cost_report import check
from ciphershift.models.training import cards
from ciphershift.models.training.data import Split
from ciphershift.models.training.loop import fine_tune
from ciphershift.models.training.phase import Phase
from ciphershift.models.training.pipeline import convert_module
from ciphershift.models.training.recipes import Conversion
from ciphershift.models.training.sets import Splits

SHORT = Phase(epochs=2, learning_rate=1e-5, frozen=0.5, distortion=0.0, batch=50)


class Net(nn.Module):
    """A public front with an operation that cannot be encrypted, a shortcut, and a secret head."""

    def __init__(self) -> None:
        super().__init__()
        front = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.features = nn.Sequential(
            nn.Sequential(front, nn.BatchNorm2d(4), nn.GroupNorm(2, 4)), nn.Conv2d(4, 4, 3), nn.ReLU()
        )
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.features((x - 0.5) / 0.25).flatten(1)))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    net = Net()
    net.train()(torch.rand(50, 1, 16, 16))  # the batch norm has statistics
    return net.eval()


@pytest.fixture(scope="module")
def splits(module: nn.Module) -> Splits:
    """Noise, labeled by the module itself."""
    images = np.random.default_rng(0).integers(0, 256, (700, 1, 16, 16), dtype=np.uint8)
    with torch.no_grad():
        labels = module(torch.tensor(images).float() / 255).argmax(1).numpy()
    whole = Split(images=images, labels=labels)
    return Splits(
        name="mnist",
        classes=("a", "b", "c"),
        train=whole.part(0, 500),
        validation=whole.part(500, 600),
        test=whole.part(600, 700),
    )


@pytest.fixture(scope="module")
def entry(module: nn.Module, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ciphershift convert --public features.0` writes, and its folder of checkpoints beside it."""
    folder = tmp_path_factory.mktemp("public")
    conversion = Conversion(phases={"noisy": SHORT}, params="TOY_N128", public="features.0")
    made: dict[str, Any] = {"work": folder / "work", "output": folder / "entry", "source": "here", "made_by": "a test"}
    module = deepcopy(module)  # it is rounded to half precision, as the card's baseline is stored
    convert_module("cut", module, conversion, splits, show=lambda stage, step: None, **made)
    return folder


def test_the_public_part_computes_what_the_module_computes(entry: Path, module: nn.Module, splits: Splits) -> None:
    stem = Program.load(entry / "entry").stem
    assert stem is not None
    images = splits.test.images / 255
    with torch.no_grad():
        expected = module.features[0]((torch.tensor(images).float() - 0.5) / 0.25).numpy()  # type: ignore[index, operator]
    assert np.abs(stem.run(images) - expected).max() < 1e-5
    scaled = stem.scaled(expected)
    assert 0.99 < ((scaled >= 0) & (scaled <= 1)).mean() < 1
    assert np.isclose(stem.unit(images), scaled.clip(0, 1), atol=1e-5).all()
    assert len(set(stem.high)) == 4  # each channel has its own range


def test_the_secret_part_computes_the_rest(entry: Path, module: nn.Module, splits: Splits) -> None:
    program = Program.load(entry / "entry")
    assert (program.sample_shape, program.input.shape) == ((1, 16, 16), (4, 8, 8))
    assert program.lookups == 4 * 6 * 6
    with torch.no_grad():
        expected = module(torch.tensor(splits.test.images).float() / 255).numpy()
    found = simulate.plain(program, splits.test.images) * program.output.scale
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9  # weights are powers of two


def test_the_card_is_measured_through_both_parts(entry: Path, splits: Splits) -> None:
    program, card = Program.load(entry / "entry"), cards.read(entry / "entry")
    assert card["public"] == json.loads(json.dumps(program.stem and program.stem.to_spec()))
    right = simulate.plain(program, splits.test.images).argmax(1) == splits.test.labels
    assert card["accuracy_quantised"] == right.mean()
    assert card["training"]["public"] == "features.0"


def test_what_the_public_part_gives_is_kept_for_an_interrupted_run(entry: Path) -> None:
    kept = [np.load(path) for path in (entry / "work").glob("behind-*.npy")]
    assert sorted(array.shape for array in kept) == [(100, 4, 8, 8), (500, 4, 8, 8)]
    assert all(array.dtype == np.uint8 for array in kept)


def test_the_file_holds_no_names_of_the_owners_machine(entry: Path) -> None:
    content = (entry / "entry" / "stem.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path.home()).encode() not in content
    onnx.checker.check_model(onnx.load_model_from_string(content))


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.first(x))
        return torch.as_tensor(self.head(torch.relu(self.second(first) + self.second(first * 2) + first)))


def test_writing_the_file_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    mirrored = nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")  # its constants are merged, each with a line
    module = nn.Sequential(mirrored, nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).eval()
    with caplog.at_level("INFO"):
        convert(module, torch.rand(60, 1, 8, 8), public="0")
    assert [record.name for record in caplog.records] == []


@pytest.mark.parametrize(
    ("public", "problem"),
    [
        ("third", "name one of first, head, second"),
        ("second", "gives 2 results"),
        ("head", "is its input; end in nn.Linear"),
    ],
)
def test_a_cut_that_cannot_be_made_says_where_to_cut(public: str, problem: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=problem):
        convert(Shortcut().eval(), torch.rand(200, 8), params="TOY_N128", public=public)


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.first(x))
        return torch.as_tensor(self.head(torch.relu(self.second(first) + first)))


def test_a_shortcut_around_the_cut_is_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match="behind the end of a shortcut"):
        convert(Around().eval(), torch.rand(200, 8), params="TOY_N128", public="second")


def test_an_encoding_before_a_public_part_is_refused_with_the_way_out(module: nn.Module) -> None:
    raw = np.random.default_rng(0).normal(0, 3, (50, 1, 16, 16))
    with pytest.raises(BadStemError, match=r"\(x - low\) / \(high - low\)"):
        convert(module, raw, public="features.0", inputs=Inputs(encoding=fit_encoding(raw)))


def test_the_cost_is_that_of_the_secret_part(module: nn.Module) -> None:
    whole, secret = (check(module, (1, 16, 16), params="TOY_N128", public=public) for public in (None, "features.0"))
    assert whole.cost is None  # the group norm is in the public part
    assert secret.cost is not None
    assert secret.cost.lookups == 4 * 6 * 6


def converted(module: nn.Module, splits: Splits) -> Network:
    images = torch.tensor(splits.train.images[:200]).float() / 255
    return convert(module, images, params="TOY_N128", public="features.0")


def test_fine_tuning_takes_the_raw_images(module: nn.Module, splits: Splits, tmp_path: Path) -> None:
    network = converted(module, splits)
    fine_tune(network, splits.train, splits.validation, checkpoint=tmp_path / "c.pt", phase=SHORT)
    assert not network.training


def test_images_are_changed_before_the_public_part_and_the_teacher_sees_them(
    module: nn.Module, splits: Splits, tmp_path: Path
) -> None:
    network, seen = converted(module, splits), []

    class Teacher(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return torch.as_tensor(module(images))

    given: list[Tensor] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]) if network.training else None)
    phase = replace(SHORT, epochs=1, frozen=0.0, shift=2, distilled=0.5)
    fine_tune(network, splits.train, None, checkpoint=tmp_path / "c.pt", phase=phase, teacher=Teacher().eval())
    hook.remove()
    assert network.stem is not None
    assert len(seen) == len(given) == 500 // 50
    shown = {image.numpy().tobytes() for image in torch.tensor(splits.train.images).float() / 255}
    assert sum(image.numpy().tobytes() in shown for image in seen[0]) < 10  # few are neither shifted nor mirrored
    steps = np.abs(given[0].numpy() - network.stem.scaled(network.stem.run(seen[0].numpy())).clip(0, 1)) * 255
    assert steps.max() < 0.51  # on levels, and those of the images that the teacher saw


def test_a_module_that_was_changed_since_is_refused(module: nn.Module, splits: Splits, tmp_path: Path) -> None:
    changed = deepcopy(module)
    network = converted(changed, splits)
    with torch.no_grad():
        for weight in changed.parameters():
            weight.mul_(1.1)
    with pytest.raises(NotEquivalentError, match="convert it again"):
        fine_tune(network, splits.train, None, checkpoint=tmp_path / "c.pt", phase=replace(SHORT, shift=2))


def test_a_linear_head_is_converted_without_look_ups_and_without_training(splits: Splits, tmp_path: Path) -> None:
    torch.manual_seed(3)
    head = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU()), nn.Flatten(), nn.Linear(144, 3))
    made: dict[str, Any] = {
        "work": tmp_path / "work",
        "output": tmp_path / "head",
        "source": "here",
        "made_by": "a test",
    }
    conversion = Conversion(phases={}, params="TOY_N128", public="0")
    convert_module("head", head.eval(), conversion, splits, show=lambda stage, step: None, **made)
    program = Program.load(tmp_path / "head")
    assert program.lookups == 0
    assert not list((tmp_path / "work").glob("*"))  # nothing is computed for all training images
    with torch.no_grad():
        expected = head(torch.tensor(splits.test.images).float() / 255).numpy()
    found = simulate.plain(program, splits.test.images) * program.output.scale
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_conversion_is_judged_on_what_clients_send(module: nn.Module, splits: Splits) -> None:
    """Also where the public part's values lie outside the range that calibration has seen."""
    images = torch.tensor(splits.train.images).float() / 255
    network = convert(module, 0.4 + 0.2 * images, public="features.0")
    assert network.stem is not None
    judge = Judge(module=module, samples=images[:50], targets=None)
    sent = network.stem.scaled(network.stem.run(images[:50].numpy()))
    assert (sent < -0.1).any() and (sent > 1.1).any()
    levels = np.rint(255 * sent.clip(0, 1))
    assert np.array_equal(judge._steps(network).numpy(), network.steps_of(torch.tensor(levels / 255).float()).numpy())
