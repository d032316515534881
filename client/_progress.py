"""A progress bar on a terminal's stderr or in a notebook: key upload, current layer, look-ups done, time left."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ciphershift.client.jobs import JobStatus


class ProgressBar:
    """One line about the current operation; shows nothing without a terminal or notebook."""

    def __init__(self, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not (shown and (console.is_terminal or _in_notebook(console))),
        )
        self._task: TaskID = self._bar.add_task("", total=None, note="")
        self._done_before = 0
        self._jobs_total = 0

    def __enter__(self) -> Self:
        """Shows nothing yet: a passphrase may be asked for on the same terminal first."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes it."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Shows a stage of unknown length."""
        self._bar.start()
        self._bar.reset(self._task, total=None, description=text, note="")

    def upload(self, nbytes: int) -> None:
        """Starts an upload of `nbytes` bytes."""
        self._bar.start()
        self._bar.reset(
            self._task, total=nbytes, description="evaluation keys, sent once", note=f"{nbytes / 1e6:.1f} MB"
        )

    def uploaded(self, nbytes: int) -> None:
        """Counts `nbytes` more bytes as sent."""
        self._bar.advance(self._task, nbytes)

    def jobs(self, lookups: int) -> None:
        """Starts one or more jobs of `lookups` look-ups in all."""
        self._bar.start()
        self._jobs_total = lookups
        self._done_before = 0
        self._bar.reset(self._task, total=lookups or None, description="sent", note="")

    def job(self, status: JobStatus) -> None:
        """Shows the status of a job; the look-ups of finished jobs stay counted."""
        progress = status.progress
        done = self._done_before + progress.bootstraps_done
        note = f"{done}/{self._jobs_total} look-ups"
        if status.state == "pending":
            ahead = status.queue_position
            description = "waiting" if ahead is None else f"waiting, {ahead} before it"
        else:
            description = progress.layer or status.state
            if (left := self._seconds_left(status)) is not None:
                note += f", {left:.0f} s left"
        if status.is_finished:
            self._done_before += progress.bootstraps_total
        self._bar.update(self._task, completed=done, description=description, note=note)

    def _seconds_left(self, status: JobStatus) -> float | None:
        if status.progress.bootstraps_total == self._jobs_total:
            return status.progress.eta_seconds
        return self._bar.tasks[0].time_remaining


def _in_notebook(console: Console) -> bool:
    """Whether this is a notebook that can redraw a line: rich needs ipywidgets for it."""
    return console.is_jupyter and find_spec("ipywidgets") is not None
