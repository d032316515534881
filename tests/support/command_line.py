"""Runs `ciphershift …` inside the test process: what a new process would print and how it would end, without its seconds of imports."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from ciphershift.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, environment: Mapping[str, str]) -> Done:
    """Runs a command with this environment alone."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        patch.dict(os.environ, {"COLUMNS": "200", **environment}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())
