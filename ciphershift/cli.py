"""The command `ciphershift`: one front door to the commands of client, server, models and benchmarks.

A command's module is imported when the command runs, so that the help is quick and no command needs another's packages.
Every error that a user can cause becomes one line on stderr, ``code: message``, with exit status 1; wrong usage has status 2.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from ciphershift import __version__
from ciphershift.errors import CiphershiftError, ConfigurationError


class Target(NamedTuple):
    """Where a command is: a typer application, the command's name in it ("" for the application as a whole), and its extra."""

    module: str
    name: str
    extra: str
    summary: str


_CLIENT, _SERVER, _MODELS = "ciphershift.client.cli", "ciphershift.server.cli", "ciphershift.models.cli"
COMMANDS = {
    "serve": Target(f"{_SERVER}.serve", "serve", "server", "Serve encrypted inference."),
    "worker": Target(f"{_SERVER}.serve", "worker", "server", "Compute the jobs that serving processes accept."),
    "tenants": Target(f"{_SERVER}.tenants", "", "server", "Manage tenants and their API keys."),
    "repository": Target(f"{_SERVER}.repository", "", "server", "List, load and unload a server's models."),
    "migrate": Target(f"{_SERVER}.serve", "migrate", "server", "Bring the database to this release's schema."),
    "settings": Target(f"{_SERVER}.serve", "settings", "server", "Print the server's effective settings."),
    "predict": Target(
        f"{_CLIENT}.predict", "predict", "client", "Encrypt images, have a server classify them, decrypt the answers."
    ),
    "keygen": Target(f"{_CLIENT}.predict", "keygen", "client", "Make a pair of secret and evaluation keys."),
    "jobs": Target(f"{_CLIENT}.jobs", "", "client", "Submit encrypted images now, fetch the answers later."),
    "page": Target(f"{_CLIENT}.predict", "page", "page", "Open a page to draw a digit and classify it encrypted."),
    "check": Target(_MODELS, "check", "models", "List what a torch network would cost, or what in it is unsupported."),
    "convert": Target(_MODELS, "convert", "models", "Convert a trained torch network into a servable model."),
    "train": Target(_MODELS, "train", "models", "Train a network of the zoo."),
    "verify": Target(_MODELS, "verify", "models", "Compare encrypted with plaintext evaluation."),
    "answer": Target(_MODELS, "answer", "models", "Make a model whose answers reveal less."),
    "models": Target(_MODELS, "models", "models", "List the networks of the zoo."),
    "bench": Target("ciphershift.benchmarks.cli", "", "dev", "Run a benchmark (source checkout only)."),
}


class _Lazy(TyperCommand):
    """A command by its summary; the real one is imported when a context is made for it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=COMMANDS[name].summary)
        self.target = COMMANDS[name]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Imports the command; its context takes the place of this one's."""
        return load(self.target).make_context(info_name, args, parent, **extra)


class _FrontDoor(TyperGroup):
    """Finds commands in COMMANDS."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of all commands, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a stand-in for the command, or None."""
        return _Lazy(cmd_name) if cmd_name in COMMANDS else None


def load(target: Target) -> Any:
    """Imports and returns a command.

    Raises:
        ConfigurationError: a package that it needs is not installed.
    """
    try:
        application = import_module(target.module).app
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith("ciphershift.benchmarks"):
            raise ConfigurationError("benchmarks are not in the installed package: run this in a checkout") from None
        if missing.split(".")[0] == "ciphershift":
            raise
        raise ConfigurationError(
            f"this command needs {missing}, which is not installed: pip install 'ciphershift[{target.extra}]'"
        ) from None
    command: Any = typer.main.get_command(application)
    return command.commands[target.name] if target.name else command


app = typer.Typer(cls=_FrontDoor, add_completion=False, no_args_is_help=True, rich_markup_mode="rich")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ciphershift {__version__}")
        raise typer.Exit


@app.callback()
def _front_door(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Encrypted inference of neural networks with exact ReLU and max-pool.

    Examples:

      CIPHERSHIFT_OPEN=true ciphershift serve

      ciphershift predict image.png --model mnist-fast

      ciphershift check my_network.py:my_network
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 done, 1 a typed error, 2 wrong usage, 130 interrupted."""
    try:
        status = app(arguments, prog_name="ciphershift", standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if context is not None:
            typer.echo(f"{context.get_usage()}\nTry '{context.command_path} --help'.", err=True)
        _leave("usage_error", error.format_message(), 2)
    except (typer.Abort, KeyboardInterrupt):
        _leave("interrupted", "stopped by the user", 130)
    except CiphershiftError as error:
        _leave(error.code, error.message, 1)
    except BrokenPipeError:  # the reader of a pipe has read enough
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as error:
        _leave("os_error", str(error), 1)
    raise SystemExit(status if isinstance(status, int) else 0)


def _leave(code: str, message: str, status: int) -> NoReturn:
    typer.echo(f"{code}: {message}", err=True)
    raise SystemExit(status)
