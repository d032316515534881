"""Pages that list what is in the code list all of it, and nothing else."""

import re

import httpx

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.errors import CiphershiftError
from ciphershift.server.metrics import Metrics
from ciphershift.server.settings import Settings
from tests.support.documents import ROOT


def rows(page: str, pattern: str) -> dict[str, list[str]]:
    """The rows of a page's tables whose first cell is code of this form: the other cells by the first one."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    tables = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    chosen = [(cells[0].strip("`"), cells[1:]) for cells in tables if re.fullmatch(rf"`{pattern}`", cells[0])]
    assert len(chosen) == len(dict(chosen)), "a row is there twice"
    return dict(chosen)


def test_every_error_code_is_in_troubleshooting_with_its_status(server: ServerProcess) -> None:
    known = {code: str(error.http_status) for code, error in CiphershiftError.by_code.items()}
    for answer in (httpx.get(f"{server.url}/nowhere"), httpx.put(f"{server.url}/v2")):  # the framework's own
        known[answer.json()["code"]] = str(answer.status_code)
    listed = rows("troubleshooting.md", "[a-z_]+")
    assert {code: cells[0] for code, cells in listed.items()} == known
    assert all(len(cells) == 3 and cells[1] and cells[2] for cells in listed.values())


def test_every_setting_is_in_operations_with_its_default_and_meaning() -> None:
    known = {f"CIPHERSHIFT_{name.upper()}": field for name, field in Settings.model_fields.items()}
    listed = rows("operations.md", "CIPHERSHIFT_[A-Z_]+")
    assert {name: cells[1] for name, cells in listed.items()} == {
        name: field.description for name, field in known.items()
    }
    for name, (default, _) in listed.items():
        if name not in (
            "CIPHERSHIFT_MODELS",
            "CIPHERSHIFT_STORAGE",
            "CIPHERSHIFT_CACHE",
        ):  # said in words: they depend on the machine
            assert default.strip("`") == in_environment(known[name].default), name


def in_environment(value: object) -> str:
    """A default as one would write it into the environment."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def test_every_series_is_in_operations() -> None:
    metrics = Metrics()
    metrics.watch(dict)
    known = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in metrics.registry.collect()
        if family.name.startswith("ciphershift_")
    }
    listed = rows("operations.md", "ciphershift_[a-z_]+")
    assert {name: cells[1].partition(":")[0] for name, cells in listed.items()} == known
