"""Every command of every room: its help says what it does, with an example and a word on each option."""

from collections.abc import Iterator

import click
import pytest
import typer

import benchmarks.__main__
import client.__main__
import models.__main__
import server.__main__

ROOMS = {
    "benchmarks": benchmarks.__main__.cli,
    "client": client.__main__.cli,
    "models": models.__main__.app,
    "server": server.__main__.cli,
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Each command, and each group of them, by what is typed after `python -m`."""
    waiting = [(room, typer.main.get_command(cli)) for room, cli in ROOMS.items()]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        waiting += [(f"{name} {child}", known) for child, known in getattr(command, "commands", {}).items()]


@pytest.mark.parametrize(("name", "command"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_help_says_what_a_command_does_with_an_example(name: str, command: click.Command) -> None:
    text = command.help or ""
    assert f"python -m {name}" in text.partition("Example")[2]
    for parameter in command.params:
        words = getattr(parameter, "help", None) or ""
        assert words.endswith("."), f"{name}: {parameter.name} is not explained by a sentence"
        assert "[" not in words, f"{name}: {parameter.name}: what stands in brackets is taken for markup and not shown"
