"""A softmax or sigmoid at the end is remembered, and computed from the logits by whoever decrypts them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ciphershift.errors import ProgramError
from ciphershift.he_layers import simulate
from ciphershift.he_layers.program import OutputSpec, Program
from ciphershift.models.compiler.convert import before_rounding
from ciphershift.models.compiler.export import export
from ciphershift.models.compiler.inputs import Logits
from ciphershift.models.cost_report import check
from ciphershift.protocol.outputs import OUTPUTS

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
