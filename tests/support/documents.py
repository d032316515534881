"""The project's documents, their fenced blocks, and how blocks are followed as a reader follows them.

```sh                       is run by bash, from one folder, with the environment that the blocks before it left
```sh … &                   starts a server; the next block runs when the server is ready
```python                   is run; names last to the end of the document
```python name.py           is saved under this name
```text  (after a block)    is what that block prints; ... stands for anything
<!-- not run: why -->       before a block: it is only shown
<!-- run by tests/….py -->  before a block: that test (or .ci/run) does what the block shows

The comments are invisible where the document is read.
"""

import doctest
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("benchmarks", "client", "deploy", "docs", "he_layers", "models", "server", "tests")
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md")))
    if "node_modules" not in path.parts
)
START_SECONDS = 240.0
BLOCK_SECONDS = 300.0
_FENCE = re.compile(r"(?:^<!-- (.*) -->\n)?^```(.*)\n((?:(?!```).*\n)*)```\n", re.MULTILINE)
_PORT = re.compile(r"(?<=127\.0\.0\.1:)80\d\d|(?<=--port )80\d\d")
_OWN = ("PWD", "OLDPWD", "SHLVL", "_")  # a shell's, of no meaning to the next one


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: language, the words after it, its text, and the comment on the line before it."""

    language: str
    title: str
    text: str
    comment: str

    @property
    def is_run(self) -> bool:
        return self.language in ("sh", "python") and not self.comment


def name_of(document: Path) -> str:
    """A document's path in the checkout."""
    return str(document.relative_to(ROOT))


def blocks(document: Path) -> list[Block]:
    """Every fenced block of a document, in order."""
    found = _FENCE.findall(document.read_text(encoding="utf-8"))
    return [
        Block(language=info.partition(" ")[0], title=info.partition(" ")[2], text=text, comment=comment)
        for comment, info, text in found
    ]


class Reader:
    """Follows a document in a folder, as somebody does who has just cloned the project.

    Attributes:
        names: what the Python blocks have defined.
        printed: all that the blocks have printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, object] = {}
        self.printed = ""
        self._ports: dict[str, int] = {}
        self._groups: list[int] = []
        self._environment = dict(os.environ)
        for shown in ("client/samples", "docs/examples"):  # what the documents read from the checkout
            (folder / shown).parent.mkdir(exist_ok=True)
            (folder / shown).symlink_to(ROOT / shown)
        url = f"http://127.0.0.1:{self._port('8000')}"  # where servers listen and clients ask by default
        os.environ |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CIPHERSHIFT_HOME": str(folder / "home"),
            "CIPHERSHIFT_STORAGE": str(folder / "storage"),
            "CIPHERSHIFT_PORT": str(self._port("8000")),
            "CIPHERSHIFT_URL": url,
        }

    def follow(self, document: Path) -> None:
        """Runs every block that is to be run; raises AssertionError where one fails or prints something else."""
        last = ""
        for block in blocks(document):
            if block.language == "text" and last:
                _compare(block.text, last)
            last = self._run(block) if block.is_run else ""
            self.printed += last

    def close(self) -> None:
        """Ends what the blocks have left running, and puts the environment back."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        os.environ.clear()
        os.environ.update(self._environment)

    def _run(self, block: Block) -> str:
        text = _PORT.sub(lambda found: str(self._port(found[0])), block.text)
        if block.title.endswith(".py"):
            (self.folder / block.title).write_text(text)
            return ""
        if block.language == "python":
            with redirect_stdout(io.StringIO()) as output:
                exec(compile(text, "<block>", "exec"), self.names)
            return output.getvalue()
        return self._shell(text)

    def _shell(self, text: str) -> str:
        printed, said, left = (self.folder / name for name in ("stdout", "stderr", "environment"))
        script = f"set -euo pipefail\n{text}\nenv --null > {left}\n"
        # Files, since a pipe would stay open with a server that is left running.
        with printed.open("w") as stdout, said.open("w") as stderr:
            shell = subprocess.Popen(
                ["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
            )
        self._groups.append(shell.pid)
        status = shell.wait(timeout=BLOCK_SECONDS)
        assert status == 0, f"{text}\nended with {status}:\n{printed.read_text()}{said.read_text()}"
        pairs = dict(pair.split("=", 1) for pair in left.read_text().split("\0") if "=" in pair)
        os.environ |= {name: value for name, value in pairs.items() if name not in _OWN}
        for line in text.splitlines():
            if line.endswith("&"):
                given = re.search(r"--port (\d+)", line)
                self._wait_until_ready(int(given[1]) if given else self._port("8000"), said)
        return printed.read_text()

    def _wait_until_ready(self, port: int, log: Path) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", trust_env=False).is_success:
                    return
            time.sleep(0.1)
        raise AssertionError(f"no server is ready at port {port}:\n{log.read_text()}")

    def _port(self, shown: str) -> int:
        """A free port in place of one that a document shows."""
        if shown not in self._ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[shown] = probe.getsockname()[1]
        return self._ports[shown]


def _compare(want: str, got: str) -> None:
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert checker.check_output(want, got, flags), f"the document shows\n{want}\nprinted was\n{got}"
