"""What the peers' driver makes of their scripts, and the weights that it hands them."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ciphershift.benchmarks.peers import networks, systems
from ciphershift.benchmarks.peers.systems import Peer

PEER = Peer(folder="some", system="Some", images=3, quick_images=1, limit_s=30.0)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A peer whose interpreter is ours; returns the path of its script."""
    monkeypatch.setattr(systems, "WORK", tmp_path / "work")
    monkeypatch.setattr(systems, "SCRIPTS", tmp_path)
    PEER.python.parent.mkdir(parents=True)
    PEER.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    PEER.python.chmod(0o755)
    script = tmp_path / "some" / "run.py"
    script.parent.mkdir()
    return script


def test_what_a_script_prints_becomes_records(installed: Path) -> None:
    installed.write_text(
        "import json, sys\nprint('talk')\nprint(json.dumps({'system': 'Some', 'images': int(sys.argv[2])}))"
    )
    (record,) = systems.run_peer(PEER, quick=False)
    assert record["benchmark"] == "peers"
    assert (record["peer"], record["system"], record["images"]) == ("some", "Some", 3)
    assert record["security_bits"] is None
    assert record.keys() >= set(systems.MEMBERS)
    assert [record["images"] for record in systems.run_peer(PEER, quick=True)] == [1]


def test_single_look_ups_have_the_same_members_as_networks(installed: Path) -> None:
    installed.write_text("import json\nprint(json.dumps({'op': 'lookup_4bit', 'lookup_error': 1e-3, 'key_bytes': 5}))")
    (record,) = systems.run_peer(replace(PEER, images=0), quick=False)
    assert record.keys() >= set(systems.MEMBERS)
    assert (record["activation"], record["lookup_error_4bit"], record["key_bytes"]) == ("look-up", 1e-3, 5)
    assert record["accuracy_clear"] is None


def test_a_script_that_fails_is_said_with_its_own_words_beside_what_it_found(installed: Path) -> None:
    installed.write_text("import json\nprint(json.dumps({'system': 'Some'}))\nraise SystemExit('no such instruction')")
    found, failed = systems.run_peer(PEER, quick=False)
    assert "skipped" not in found
    assert failed["skipped"] == "no such instruction"


def test_a_peer_that_is_not_installed_is_said_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "WORK", tmp_path)
    (record,) = systems.run_peer(PEER, quick=False)
    assert record["skipped"] == "not installed: benchmarks/peers/install.sh some"


def test_a_peer_of_a_folder_that_another_has_is_told_by_a_name_of_its_own(installed: Path) -> None:
    installed.with_name("long.py").write_text("print('{}')")
    (record,) = systems.run_peer(replace(PEER, called="some-long", script="long.py"), quick=False)
    assert record["peer"] == "some-long"
    names = [peer.name for peer in (*systems.PEERS, *systems.PHOTOGRAPHS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "peer", [*systems.PEERS, *systems.LOOKUPS, *systems.PHOTOGRAPHS], ids=lambda peer: f"{peer.folder}/{peer.script}"
)
def test_the_installer_makes_the_environment_of_every_peer_from_pinned_versions(peer: Peer) -> None:
    assert (systems.SCRIPTS / peer.folder / peer.script).exists()
    required = (systems.SCRIPTS / peer.folder / "requirements.txt").read_text().splitlines()
    assert any("==" in line for line in required)
    installer = (systems.SCRIPTS / "install.sh").read_text()
    (names,) = re.findall(r"\$\{@:-(.*?)\}", installer)
    assert peer.folder in names.split()


@pytest.mark.parametrize("activation", ["square", "polynomial"])
def test_folded_weights_around_a_square_compute_the_trained_network(activation: str) -> None:
    torch.manual_seed(0)
    module = networks.tutorial(activation)
    with torch.no_grad():
        for _ in range(3):
            module(torch.rand(64, 1, 28, 28))  # moves the statistics of the batch norms
    module.eval()
    images = torch.rand(5, 1, 28, 28)
    w = {
        name: torch.tensor(value) for name, value in networks.folded(module, networks.ACTIVATIONS[activation]()).items()
    }
    x = torch.nn.functional.conv2d(images, w["conv.weight"], w["conv.bias"], 3).flatten(1) ** 2
    x = (x @ w["dense.weight"].T + w["dense.bias"]) ** 2
    x = x @ w["head.weight"].T + w["head.bias"]
    np.testing.assert_allclose(x.numpy(), module(images).detach().numpy(), rtol=1e-3, atol=1e-3)


def test_a_system_without_a_network_gets_no_images_and_measures_primitives(
    installed: Path,
) -> None:
    installed.with_name("lookups.py").write_text("import json, sys\nprint(json.dumps({'arguments': sys.argv[1:]}))")
    (record,) = systems.run_peer(replace(PEER, images=0, script="lookups.py", options=("--p", "1")), quick=False)
    assert (record["benchmark"], record["system"], record["arguments"]) == ("primitives", "Some", ["--p", "1"])
