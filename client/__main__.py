"""`python -m client`: make keys, and ask a server about a picture that it never sees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from client import job_commands, pictures
from client.client import Client
from client.keystore import Keystore
from client.options import DEFAULT_URL, CaFile, ModelName, Pictures, Timeout, Url
from he_layers.crypto import params as parameter_sets
from he_layers.crypto.errors import ConfigurationError, HEServiceError

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Encrypted inference: the client's side.\n\n"
    "A server that asks for an API key gets the one in the environment variable CIPHERSHIFT_API_KEY.\n\n"
    "Examples:\n\n  python -m client demo\n\n"
    "  python -m client predict client/samples/mnist-0-is-7.png --model mnist-fast",
)
cli.add_typer(job_commands.cli, name="jobs")


@cli.command()
def keygen(
    params: Annotated[str, typer.Option(help="Name or id of a parameter set.")] = parameter_sets.DEFAULT,
    home: Annotated[Path | None, typer.Option(help="Folder for keys.", show_default="the user's own")] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase that seals the secret keys.")
    ] = False,
) -> None:
    """Make a pair of secret and evaluation keys, unless there is one.

    `predict` does the same when it needs keys; this is for making them ahead of time, or for sealing them under a passphrase.
    Programs give it in CIPHERSHIFT_PASSPHRASE.

    Examples:

      python -m client keygen --params FAST_N512

      python -m client keygen --passphrase
    """
    chosen = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else None
    pair = Keystore(home, passphrase=chosen, ask=_ask()).open(parameter_sets.get(params))
    size = pair.evaluation_keys.stat().st_size
    typer.echo(f"{pair.evaluation_keys.parent}: key {pair.key_id[:16]}…, {size / 1e6:.1f} MB to upload")


@cli.command()
def predict(
    files: Pictures,
    url: Url = DEFAULT_URL,
    model: ModelName = None,
    ca_file: CaFile = None,
    timeout: Timeout = None,
) -> None:
    """Encrypt pictures, have a server evaluate its network on them, and decrypt the answers.

    A bar shows the layer that is computed and the time left; Ctrl-C ends the work on the server, too.

    Examples:

      python -m client predict client/samples/mnist-0-is-7.png --model mnist-fast

      CIPHERSHIFT_API_KEY=csk_… python -m client predict a.png b.png --url https://he.example.org
    """
    with Client(url, model=model, ca_file=ca_file, keystore=Keystore(ask=_ask())) as client:
        profile = client.profile()
        logits = client.predict(pictures.read(files, profile.input_shape), timeout=timeout)
        for file, row in zip(files, logits, strict=True):
            typer.echo(pictures.describe(str(file), row, profile))
        seconds = client.timings
        typer.echo(
            f"keys {seconds.keys:.2f} s, encrypt {seconds.encrypt:.2f} s, transfer {seconds.transfer:.2f} s, "
            f"server {seconds.server:.2f} s, decrypt {seconds.decrypt:.2f} s"
        )


@cli.command()
def demo(
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            envvar="CIPHERSHIFT_URL",
            help="Where a server listens.",
            show_default="one is started on this machine",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model that is chosen at first.")] = None,
    ca_file: CaFile = None,
    models: Annotated[
        Path | None,
        typer.Option(
            envvar="CIPHERSHIFT_MODELS",
            help="Folder of networks, for the server that is started and for answers in the clear.",
            show_default="the shipped zoo",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open a page: draw a digit, see what the server sees of it, and get the answer.

    The page is served by this process to this machine alone. Pictures are encrypted here, and the keys stay here.

    Examples:

      python -m client demo

      python -m client demo --server https://he.example.org --model mnist-fast --no-browser
    """
    try:
        from client.demo import process  # what only the page needs is loaded, and may be missing, here
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the page needs {error.name}, which is not installed: pip install 'ciphershift[demo]'"
        ) from None
    process.serve(
        server, model=model, ca_file=ca_file, models=models, port=port, show=browser, keystore=Keystore(ask=_ask())
    )


def _ask() -> Callable[[], str] | None:
    """A prompt for the passphrase, where there is somebody to answer it."""
    return (lambda: str(typer.prompt("Passphrase", hide_input=True, err=True))) if sys.stdin.isatty() else None


def main() -> None:
    """Runs the command line; a typed error becomes one line and exit code 1."""
    try:
        cli()
    except HEServiceError as error:
        typer.echo(f"{error.code}: {error.message}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
