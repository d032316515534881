"""The models' commands: what they do without the client's packages, and what `verify` says of a recurrent layer."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from ciphershift.errors import UnreadableDataError
from ciphershift.he_layers.recurrence import certificates
from ciphershift.models import cli
from ciphershift.models.training import sets
from ciphershift.models.training.data import Split
from tests.he_layers.test_recurrence import FEATURES, STEPS, network, with_weights

NO_CLIENT = "import sys; sys.modules['tenseal'] = None; from ciphershift.cli import main; main({arguments!r})"


@pytest.mark.parametrize(("arguments", "status"), [(["models"], 0), (["verify", "mnist-tiny"], 1)])
def test_only_what_encrypts_needs_tenseal(arguments: list[str], status: int, tmp_path: Path) -> None:
    code = NO_CLIENT.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.startswith("configuration: tenseal")
        assert "pip install 'ciphershift[client,models]'" in done.stderr
    else:
        assert "FAST_N5" in done.stdout


def test_verify_says_whether_the_norm_of_a_recurrent_layer_has_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, STEPS, FEATURES), dtype=np.uint8)
    weighted = with_weights(network())
    splits = SimpleNamespace(test=Split(images=images, labels=np.array([0, 1])), classes=weighted.output.classes)
    monkeypatch.setattr(sets, "of_card", lambda card: splits)
    plain = replace(weighted, recurrent=certificates(weighted))
    for program, said in (
        (weighted, "norm 0.986 with weights for each state, an error"),
        (plain, "norm 0.983, an error"),
    ):
        program.save(tmp_path)
        (tmp_path / "card.json").write_text("{}")
        done = CliRunner().invoke(cli.app, ["verify", str(tmp_path), "--images", "1"])
        assert done.exit_code == 0, done.output
        assert f"recurrent layer by_state: {said}" in " ".join(done.output.split())
    splits.classes = splits.classes[::-1]
    other = CliRunner().invoke(cli.app, ["verify", str(tmp_path), "--images", "1"]).exception
    assert isinstance(other, UnreadableDataError) and "convert it again" in str(other)
