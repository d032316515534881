"""The progress bar: where it is shown."""

import pytest
from rich.console import Console

from ciphershift.client import _progress


@pytest.mark.parametrize(
    ("terminal", "jupyter", "widgets", "shown"),
    [(True, False, False, True), (False, True, True, True), (False, True, False, False), (False, False, True, False)],
)
def test_it_is_shown_on_a_terminal_and_in_a_notebook_that_can_redraw(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, jupyter: bool, widgets: bool, shown: bool
) -> None:
    monkeypatch.setattr(_progress, "find_spec", lambda name: object() if widgets and name == "ipywidgets" else None)
    monkeypatch.setattr(
        _progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=terminal, force_jupyter=jupyter)
    )
    assert _progress.ProgressBar(shown=True)._bar.disable != shown
    assert _progress.ProgressBar(shown=False)._bar.disable
