"""The client's commands: what they print, and how they fail."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ciphershift import cli
from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client, Keystore
from ciphershift.client.local_server import local_server
from ciphershift.errors import ConfigurationError

SEVEN = Path(__file__).resolve().parents[3] / "client" / "samples" / "mnist-0-is-7.png"


def status_of(*arguments: str | Path) -> int:
    """Runs a command in this process; returns its exit status."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_keygen_says_where_the_keys_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(2):
        assert status_of("keygen", "--params", "TOY_N128", "--home", tmp_path) == 0
        said.append(capsys.readouterr().out)
    assert str(tmp_path) in said[0]
    assert said[1] == said[0]


def test_an_error_is_one_line_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("keygen", "--params", "NONE", "--home", tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith("unknown_params: ")
    assert len(said.splitlines()) == 1


def test_no_server_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("predict", SEVEN, "--url", "http://127.0.0.1:1", "--retry-timeout", "0") == 1
    assert capsys.readouterr().err.startswith("unreachable: ")


def test_the_page_says_what_is_not_installed(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; from ciphershift.cli import main; main(['page', '--no-browser'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr
    assert said.startswith("configuration: the page needs starlette")
    assert "pip install 'ciphershift[page]'" in said


def test_a_port_that_is_taken_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert status_of("page", "--no-browser", "--port", str(other.getsockname()[1])) == 1
    assert re.match(r"configuration: port \d+ cannot be used .*: choose another", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_package", "No module named 'no_such_package'.*pip install 'ciphershift\\[server\\]'"),
        ("raise SystemExit('no room on the disk')", "did not become ready; its log ends with\nno room on the disk"),
    ],
)
def test_a_server_that_does_not_start_says_why(code: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why), local_server(program=("-c", code)):
        pass


def test_predictions_and_jobs_are_told_to_programs(
    server: ServerProcess,
    keystore: Keystore,
    tiny_images: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file, image in zip(files, tiny_images, strict=False):
        Image.fromarray(image[0]).save(file)
    for command in ("jobs", "predict"):  # the command line takes no toy parameters
        monkeypatch.setattr(
            f"ciphershift.client.cli.{command}.open_client",
            lambda *_: Client(server.url, model="tiny", keystore=keystore, allow_toy_parameters=True),
        )

    def told(*arguments: str | Path) -> Any:
        assert status_of(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    predicted = told("predict", *files)
    assert list(predicted["seconds"]) == ["keys", "encrypt", "transfer", "server", "decrypt"]
    job = told("jobs", "submit", *files)["id"]
    watched = told("jobs", "watch", job)
    assert (watched["id"], watched["state"], watched["images"]) == (job, "completed", 2)
    fetched = told("jobs", "result", job)
    assert fetched["id"] == job
    for names, answers in ((map(str, files), predicted["answers"]), (("image 1", "image 2"), fetched["answers"])):
        assert [answer["sample"] for answer in answers] == list(names)
        for answer in answers:
            assert [entry["class"] for entry in answer["outputs"]["logits"]] == ["a", "b", "c"]
            assert all(isinstance(entry["logit"], float) for entry in answer["outputs"]["logits"])
    assert told("jobs", "list", "--limit", "1") == {"jobs": [watched]}
    assert told("jobs", "cancel", job)["state"] == "completed"
    assert status_of("jobs", "list") == 0
    assert "tiny" in capsys.readouterr().out
