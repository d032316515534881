"""A user's file, and weights as they lie around: loaded, or refused with the reason and a way out."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ciphershift.errors import UnreadableModuleError
from ciphershift.models.user_module import load_module, load_weights

BLOCKS = "from torch import nn\nlayers = lambda: [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)]\n"


def test_a_file_may_import_its_neighbor(tmp_path: Path) -> None:
    (tmp_path / "neighbor_blocks.py").write_text(BLOCKS)
    source = "from torch import nn\nfrom neighbor_blocks import layers\ndef make(): return nn.Sequential(*layers())\n"
    (tmp_path / "net.py").write_text(source)
    assert len(list(load_module(f"{tmp_path}/net.py:make").parameters())) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(:\n", r"net.py:1 is not Python"),
        ("import no_such_package\n", "no_such_package'; install it"),
        ("def make(width): return width\n", "give them default values"),
        ("def make(): return 1 / 0\n", r"net.py:1 raises ZeroDivisionError"),
    ],
)
def test_faults_in_a_users_file_are_told_with_their_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(UnreadableModuleError, match=message):
        load_module(f"{tmp_path}/net.py:make")


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


def saved(kind: str, module: nn.Module, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = module.state_dict()
    match kind:
        case "prefixes":
            state = {f"_orig_mod.module.{name}": value for name, value in state.items()}
        case "checkpoint":
            state = {"epoch": 3, "state_dict": state}
        case "lightning":
            state = {"state_dict": {f"model.{name}": value for name, value in state.items()}}
        case "cuda":
            monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(state, path)
    monkeypatch.undo()


@pytest.mark.parametrize("kind", ["plain", "prefixes", "checkpoint", "lightning", "cuda"])
def test_state_dicts_load_from_wherever_they_were_saved(
    kind: str, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(kind, module, tmp_path / "w.pt", monkeypatch)
    other = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    load_weights(other, tmp_path / "w.pt")
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_files_that_are_no_weights_say_what_they_are(module: nn.Module, tmp_path: Path) -> None:
    torch.save(module, tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"0.weight": torch.zeros(3, 2), "9.bias": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 40)
    for name, message in (
        ("whole.pt", r"torch.save\(module.state_dict\(\), path\)"),
        ("list.pt", "holds no state dict"),
        ("other.pt", "lack 0.bias, 2.bias, 2.weight; they have besides 9.bias"),
        ("lfs.safetensors", "git lfs pull"),
        ("noise.safetensors", "cannot be read"),
        ("none.pt", "no file"),
    ):
        with pytest.raises(UnreadableModuleError, match=message):
            load_weights(module, tmp_path / name)
