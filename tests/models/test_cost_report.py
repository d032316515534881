"""What a module costs, and what in it cannot be evaluated, by place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from ciphershift.errors import UnreadableModuleError
from ciphershift.he_layers.crypto import params as parameter_sets
from ciphershift.he_layers.crypto.ciphertexts import ProductCiphertext
from ciphershift.models.cli import app
from ciphershift.models.cost_report import check
from ciphershift.models.user_module import input_shape, load_module, load_weights

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.mark.parametrize(
    ("example", "lookups", "upload"),
    [("lenet5", 6 * 196 * 4 + 16 * 25 * 4 + 120 + 84, 4300), ("resnet20", 188_416, 13_936), ("vgg9", 115_200, 13_936)],
)
def test_the_command_tells_the_cost_of_the_examples(example: str, lookups: int, upload: int) -> None:
    done = CliRunner().invoke(app, ["check", f"{EXAMPLES / example}.py:{example}", "--params", "TOY_N128"])
    assert done.exit_code == 0, done.output
    assert f"{lookups} look-ups" in done.output
    assert f"upload {upload} bytes" in done.output


def test_the_steps_have_the_look_ups_of_the_program_where_windows_overlap() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 7 * 7, 3))
    report = check(module, (1, 16, 16), params="TOY_N128")
    assert report.cost is not None
    assert sum(step.lookups for step in report.steps) == report.cost.lookups
    assert [step.lookups for step in report.steps if step.operation == "MaxPool2d"] == [2 * (14 * 7 * 2 + 7 * 7 * 2)]


def test_the_command_lists_what_must_change() -> None:
    done = CliRunner().invoke(app, ["check", f"{EXAMPLES / 'convmixer.py'}:convmixer"], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    for place, problem in (("norm", "layer_norm"), ("convmixer.py:", "var")):
        assert any(place in line and problem in line for line in done.output.splitlines()), done.output


def shifting() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.bias, 0.5)
    return norm


class Odd(nn.Module):
    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.step(x))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (nn.Sequential(nn.BatchNorm2d(4, affine=False, track_running_stats=False)), "without running statistics"),
        (nn.Sequential(shifting(), nn.Conv2d(4, 4, 3, padding=1)), "after a shift"),
        (nn.ConstantPad2d(1, 0.5), "other values than zero"),
        (nn.LayerNorm([9, 9]), "layer_norm"),
    ],
)
def test_every_limit_is_found_where_it_is(step: nn.Module, problem: str) -> None:
    findings = check(Odd(step), (4, 9, 9), params="TOY_N128").findings
    assert any(problem in finding.problem and finding.place.startswith("step") for finding in findings), findings
    assert all(finding.instead for finding in findings)


def test_a_normalized_input_before_a_padded_convolution_is_left_to_the_conversion() -> None:
    step = nn.Sequential(shifting(), nn.Conv2d(4, 4, 3, padding=1))
    (finding,) = check(Odd(step), (4, 9, 9), params="TOY_N128").findings
    assert "inputs=Inputs(" in finding.instead


def test_a_module_that_branches_on_values_says_so() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    (finding,) = check(Branching(), (1, 4, 4)).findings
    assert "cannot be traced" in finding.problem


def test_products_of_values_and_ends_without_a_look_up_are_found() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.matmul(self.conv(x), self.conv(x))

    assert "matmul" in check(Gated(), (1, 4, 4)).findings[0].problem

    class Beside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.flatten(1), torch.relu(x).flatten(1)], 1)

    assert any("without a look-up" in finding.problem for finding in check(Beside(), (1, 4, 4)).findings)


def test_a_module_without_activations_costs_no_look_up() -> None:
    report = check(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4))
    assert not report.findings and report.cost is not None
    assert report.cost.lookups == 0 and report.cost.seconds > 0
    assert report.cost.upload_bytes == ProductCiphertext.nbytes(parameter_sets.get(parameter_sets.DEFAULT), 16)


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef net(): return nn.Linear(2, 2)\ndef other(): return 1\n")
    for source, message in (("net.py", "path/to/file"), ("net.py:none", "no function"), ("net.py:other", "a int, not")):
        with pytest.raises(UnreadableModuleError, match=message):
            load_module(str(tmp_path / source))
    module = load_module(f"{tmp_path / 'net.py'}:net")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(UnreadableModuleError, match="cannot be loaded into Linear"):
        load_weights(module, tmp_path / "w.pt")
    with pytest.raises(UnreadableModuleError, match="--input"):
        input_shape(module, None)
    with pytest.raises(UnreadableModuleError, match="3x32x32"):
        input_shape(module, "3x32x")


def test_brackets_in_a_line_of_source_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "markup_net.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self): super().__init__(); self.a, self.g = nn.Conv2d(1, 2, 3), nn.Linear(72, 10)\n"
        "    def forward(self, x):\n        left = torch.relu(self.a(x))\n"
        "        return self.g(torch.flatten(torch.cat([left, left]), 1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ciphershift", "check", f"{tmp_path}/markup_net.py:Net", "--input", "1x8x8"],
        env=os.environ | {"COLUMNS": "1000"},  # a temporary folder may have a long name
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "torch.cat([left, left])" in done.stdout
