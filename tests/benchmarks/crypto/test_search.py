"""The search tells where no parameter set serves."""

import pytest
from typer.testing import CliRunner

from ciphershift.benchmarks.cli import app


@pytest.mark.slow
def test_no_set_at_all_is_said() -> None:
    done = CliRunner().invoke(app, ["search", "--model", "mnist-tiny", "--noise", "0.1"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "no set keeps the noise of every layer of mnist-tiny to 0.1" in done.stderr
