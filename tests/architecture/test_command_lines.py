"""Every command of every room: its help says what it does, with an example and a word on each option."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ciphershift.cli import COMMANDS, load


def commands() -> Iterator[tuple[str, Any]]:
    """Each command, and each group of them, by what is typed after `ciphershift`."""
    waiting = [(name, load(target)) for name, target in COMMANDS.items()]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        waiting += [(f"{name} {child}", known) for child, known in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize(("name", "command"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_help_says_what_a_command_does_with_an_example(name: str, command: Any) -> None:
    text = command.help or ""
    assert f"ciphershift {name}" in text.partition("Example")[2]
    for parameter in command.params:
        words = getattr(parameter, "help", None) or ""
        assert words.endswith("."), f"{name}: {parameter.name} is not explained by a sentence"
        assert "[" not in words, f"{name}: {parameter.name}: what stands in brackets is taken for markup and not shown"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ciphershift", *arguments], capture_output=True, text=True, check=False
    )


def test_the_front_door_lists_every_command_and_imports_none_of_them() -> None:
    code = "import sys; from ciphershift.cli import main\ntry: main(['--help'])\nexcept SystemExit: print('\\nmodules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, _, modules = done.stdout.partition("\nmodules:")
    for name in COMMANDS:
        assert name in shown
    assert not {"torch", "fastapi", "tenseal", "httpx"} & set(modules.split())


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("nonsense",), 2, "usage_error"),
        (("predict", "--nonsense"), 2, "usage_error"),
        (("verify", "no-such-model"), 1, "unknown_model"),
        (("check", "no-such-file.py:f"), 1, "unreadable_module"),
        (("keygen", "--params", "NONE"), 1, "unknown_params"),
        (("train", "no-such-recipe"), 2, "usage_error"),
        (("serve", "--models", "/no/such/folder"), 1, "configuration"),
    ],
)
def test_an_error_is_one_line_with_its_code_on_stderr(arguments: tuple[str, ...], status: int, code: str) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].startswith(f"{code}: ")
    assert "Traceback" not in done.stderr + done.stdout


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("ciphershift ")
