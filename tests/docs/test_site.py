"""The site builds without a warning, needs no network, and a broken link fails the build."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.documents import ROOT

TO_ELSEWHERE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")

HERE = re.compile(r"\b(?:src|srcset|href)=\"((?!data:|#|[a-z]+:)[^\"#?]+)")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    options: list[str | Path] = [
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "-c",
        ROOT / "docs",
        "-d",
        site / ".doctrees",
    ]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, source, site], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_all_that_its_pages_load_is_there(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = [page for page in tmp_path.rglob("*.html") if "_downloads" not in page.parts]  # those are files of ours
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not TO_ELSEWHERE.search(text), page
        missing = [name for name in HERE.findall(text) if not (page.parent / unquote(name)).exists()]
        assert not missing, page


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "source" / "docs"
    docs.mkdir(parents=True)
    (docs / "other.md").write_text("# Other\n")
    links = ["no-page.md", "other.md#no-heading", "#not-here", "../no-code.py"]
    start = ["# Start", *(f"[word]({link})" for link in links), "```{toctree}\nother\n```\n"]
    (docs / "index.md").write_text("\n\n".join(start))
    done = build(docs.parent, tmp_path / "site")
    assert done.returncode != 0
    for missing in ("no-page.md", "no-heading", "not-here", "no-code.py"):
        assert missing in done.stderr
