"""`ciphershift jobs`: submit now, fetch the answers later."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

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
    open_client,
)
from ciphershift.client.jobs import JobStatus

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Submit encrypted images now, fetch the answers later.\n\nJobs go on while no client is connected.\n\n"
    "Example:\n\n  job=$(ciphershift jobs submit a.png b.png) && ciphershift jobs result $job",
)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as `submit` and `list` print it.")]


@app.command()
def submit(
    files: Images,
    url: Url = DEFAULT_URL,
    model: ModelName = None,
    ca_file: CaFile = None,
    retry_timeout: RetryTimeout = DEFAULT_RETRY_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Encrypt images, rows of a table or sequences, send them, and print the job's id without waiting for the answers.

    A receipt is kept beside the keys; only this user's account can read the answers.

    Examples:

      ciphershift jobs submit client/samples/mnist-0-is-7.png --model mnist-fast

      job=$(ciphershift jobs submit a.png b.png) && ciphershift jobs result $job
    """
    with open_client(url, model, ca_file, retry_timeout) as client:
        _, values = samples.read(files, client.profile())
        job = client.submit(values)
    typer.echo(_json(job.status) if as_json else job.id)


@app.command("list")
def list_jobs(
    url: Url = DEFAULT_URL,
    ca_file: CaFile = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of jobs to list.")] = 20,
    retry_timeout: RetryTimeout = DEFAULT_RETRY_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """List your jobs on the server, newest first.

    Example:

      ciphershift jobs list --limit 5
    """
    with open_client(url, None, ca_file, retry_timeout) as client:
        statuses = client.jobs(limit)
    if as_json:
        typer.echo(json.dumps({"jobs": [status.model_dump(mode="json") for status in statuses]}))
        return
    table = Table("job", "model", "images", "state", "look-ups", "time left", "created")
    for status in statuses:
        progress = status.progress
        table.add_row(
            status.id,
            status.model,
            str(status.images),
            _state(status),
            f"{progress.bootstraps_done}/{progress.bootstraps_total}",
            "" if progress.eta_seconds is None or status.is_finished else f"{progress.eta_seconds:.0f} s",
            f"{status.created.astimezone():%Y-%m-%d %H:%M:%S}",
        )
    console = Console(markup=False, emoji=False)
    # Ids are meant to be copied: do not wrap them in a pipe.
    console.print(table, width=None if console.is_terminal else 200)


@app.command()
def watch(
    job: JobId,
    url: Url = DEFAULT_URL,
    ca_file: CaFile = None,
    timeout: Timeout = None,
    retry_timeout: RetryTimeout = DEFAULT_RETRY_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Follow a job until it ends; exit status 1 if it failed or was canceled.

    Example:

      ciphershift jobs watch 3f2a… --timeout 600
    """
    with open_client(url, None, ca_file, retry_timeout) as client:
        status = client.job(job).wait(timeout)
    typer.echo(_json(status) if as_json else f"{status.id}: {_state(status)}")
    raise typer.Exit(0 if status.state == "completed" else 1)


@app.command()
def result(
    job: JobId,
    url: Url = DEFAULT_URL,
    ca_file: CaFile = None,
    timeout: Timeout = None,
    retry_timeout: RetryTimeout = DEFAULT_RETRY_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Wait for a job's answers, decrypt them, and print the class of each image, in the order of `submit`.

    Example:

      ciphershift jobs result 3f2a…
    """
    with open_client(url, None, ca_file, retry_timeout) as client:
        handle = client.job(job)
        rows = [
            (f"image {number}", row) for number, row in enumerate(image_files.rows(handle.result(timeout)), start=1)
        ]
        if as_json:
            answers = [image_files.record(name, row, handle.profile) for name, row in rows]
            typer.echo(json.dumps({"id": job, "answers": answers}))
            return
        for name, row in rows:
            typer.echo(image_files.describe(name, row, handle.profile))


@app.command()
def cancel(
    job: JobId,
    url: Url = DEFAULT_URL,
    ca_file: CaFile = None,
    retry_timeout: RetryTimeout = DEFAULT_RETRY_TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Cancel a job, or delete the answers of a finished one from the server.

    Example:

      ciphershift jobs cancel 3f2a…
    """
    with open_client(url, None, ca_file, retry_timeout) as client:
        status = client.job(job).cancel()
    typer.echo(_json(status) if as_json else f"{job}: {_state(status)}")


def _json(status: JobStatus) -> str:
    return json.dumps(status.model_dump(mode="json"))


def _state(status: JobStatus) -> str:
    if status.state == "failed":
        failure = status.failure()
        return f"failed, {failure.code}: {failure.message}"
    if status.queue_position is not None and status.state == "pending":
        return f"pending, {status.queue_position} before it"
    return status.state.replace("_", " ")
