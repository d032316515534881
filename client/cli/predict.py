"""`ciphershift keygen`, `predict` and `page`: make keys, and classify encrypted images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ciphershift.client import image_files
from ciphershift.client.cli import samples
from ciphershift.client.cli.options import (
    DEFAULT_RETRY_TIMEOUT,
    DEFAULT_URL,
    AsJson,
    CaFile,
    Images,
    ModelName,
    RetryTimeout,
    Timeout,
    Url,
    ask,
    open_client,
)
from ciphershift.client.keystore import Keystore
from ciphershift.errors import ConfigurationError
from ciphershift.he_layers.crypto import params as parameter_sets

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def keygen(
    params: Annotated[str, typer.Option(help="Name or id of a parameter set.")] = parameter_sets.STAND_INS[0],
    home: Annotated[Path | None, typer.Option(help="Folder for keys.", show_default="the user's own")] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase, and encrypt the secret keys with it.")
    ] = False,
) -> None:
    """Make a pair of secret and evaluation keys, unless there is one.

    `predict` makes keys when it needs them; use this to make them ahead of time, or to encrypt them with a passphrase.
    Scripts set it in CIPHERSHIFT_PASSPHRASE. Each set that a server's models name needs a pair of its own.

    Examples:

      ciphershift keygen --params FAST_N512

      ciphershift keygen --passphrase
    """
    chosen = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True) if passphrase else None
    pair = Keystore(home, passphrase=chosen, ask=ask()).open(parameter_sets.get(params))
    size = pair.evaluation_keys.stat().st_size
    typer.echo(f"{pair.evaluation_keys.parent}: key {pair.key_id[:16]}…, {size / 1e6:.1f} MB to upload")


@app.command()
def predict(
    files: Images,
    url: Url = DEFAULT_URL,
    model: ModelName = None,
    ca_file: CaFile = None,
    timeout: Timeout = None,
    retry_timeout: RetryTimeout = DEFAULT_RETRY_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Encrypt images, rows of a table or sequences, have a server evaluate its network on them, and decrypt the answers.

    A bar shows the current layer and the time left; Ctrl-C also cancels the jobs on the server.

    Examples:

      ciphershift predict client/samples/mnist-0-is-7.png --model mnist-fast

      CIPHERSHIFT_API_KEY=csk_… ciphershift predict a.png b.png --url https://he.example.org

      ciphershift predict patients.csv --model readmission

      ciphershift predict utterance.csv --model speaker-rnn    (a sequence: a row for each step)
    """
    with open_client(url, model, ca_file, retry_timeout) as client:
        profile = client.profile()
        names, values = samples.read(files, profile)
        answers = list(zip(names, image_files.rows(client.predict(values, timeout=timeout)), strict=True))
        seconds = client.timings
        if as_json:
            records = [image_files.record(name, row, profile) for name, row in answers]
            typer.echo(json.dumps({"answers": records, "seconds": seconds.stages()}))
            return
        for name, row in answers:
            typer.echo(image_files.describe(name, row, profile))
        typer.echo(
            f"keys {seconds.keys:.2f} s, encrypt {seconds.encrypt:.2f} s, transfer {seconds.transfer:.2f} s, "
            f"server {seconds.server:.2f} s, decrypt {seconds.decrypt:.2f} s"
        )


@app.command()
def page(
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            envvar="CIPHERSHIFT_URL",
            help="Address of the server.",
            show_default="one is started on this machine",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model that is selected at first.")] = None,
    ca_file: CaFile = None,
    models: Annotated[
        Path | None,
        typer.Option(
            envvar="CIPHERSHIFT_MODELS",
            help="Folder of networks, for the server that is started and for evaluation in the clear.",
            show_default="the shipped zoo",
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port of the page; 0 takes a free one. The browser keeps keys by address and port."
        ),
    ] = 8010,
    onnxruntime: Annotated[
        Path | None,
        typer.Option(help="Folder dist of the npm package onnxruntime-web, for models with a public part."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Open a page: draw a digit, see what the server sees of it, and get the answer.

    This process serves the page to this machine only, and passes its requests on to the server. Inputs are encrypted in the browser, and
    the keys stay there.

    Examples:

      ciphershift page

      ciphershift page --server https://he.example.org --model mnist-fast --no-browser
    """
    try:
        from ciphershift.client.page import process
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the page needs {error.name}, which is not installed: pip install 'ciphershift[page]'"
        ) from None
    process.serve(server, model=model, ca_file=ca_file, models=models, port=port, show=browser, onnxruntime=onnxruntime)
