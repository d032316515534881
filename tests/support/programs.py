"""Programs of other projects that tests run."""

import os
import shutil
import sys
from pathlib import Path

import pytest

_PLACES = ("/usr/sbin", "/usr/local/sbin", str(Path(sys.executable).parent))  # beside those of PATH


def required(name: str, package: str) -> str:
    """Returns the path of a program. Without it the test is skipped, or fails where continuous integration runs it (CI is set).

    Args:
        name: of the program.
        package: of Debian, or of PyPI, that has it; for the message.
    """
    found = shutil.which(name, path=":".join((os.environ["PATH"], *_PLACES)))
    if found is not None:
        return found
    message = f"{name} is not installed: install {package} (.ci/run installs what Debian has, as root)"
    raise (pytest.fail.Exception if os.environ.get("CI") else pytest.skip.Exception)(message)
