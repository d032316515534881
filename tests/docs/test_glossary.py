"""Words that the glossary rules out are in no file; its own list is what is looked for."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import ROOT

GLOSSARY = "docs/glossary.md"
TEXT = {
    *(".py", ".pyi", ".md", ".toml", ".yml", ".yaml", ".cff", ".sh", ".conf", ".tpl"),
    *(".cpp", ".hpp", ".cu", ".ts", ".js", ".mjs", ".html", ".css"),
}
NAMED = {"Makefile", "Dockerfile", "Caddyfile"}
LEFT_OUT = ("docs/decisions/0", GLOSSARY, "tests/docs/test_glossary.py")
# Names that are not words of ours, or that do not change: paths and targets, HTML, members of stored files, a code of errors.
NAMES = re.compile(
    r"docs/pictures|make pictures|\bpictures/|\"pictures\"|\btest_pictures|^pictures:|\bpictures stub|</?picture\b"
    r"|accuracy_quantised|\bWorkshopError +workshop$|\bcode = \"workshop\"|`workshop`",
    re.MULTILINE,
)
CHANGELOG_ONLY = "HEServiceError"


def forbidden(text: str) -> dict[str, str]:
    """Each word that is not used, as a pattern, with what to take instead."""
    _, _, table = text.partition("## Words that are not used")
    found = {}
    for row in re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE)[2:]:
        for word in row[0].split(", "):
            found[word] = row[1]
    return found


def pattern(words: list[str]) -> re.Pattern[str]:
    """Matches any of the words, also as a part of a name in snake_case or CamelCase."""
    alternatives = "|".join(re.escape(word).replace("…", r"[a-z]*").replace(r"\ ", " ") for word in words)
    return re.compile(rf"(?<![A-Za-z])(?:{alternatives})(?![a-z])", re.IGNORECASE)


def files() -> Iterator[Path]:
    """What git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        path = ROOT / name
        if (path.suffix in TEXT or path.name in NAMED) and not name.startswith(LEFT_OUT) and path.is_file():
            yield path


def offenses(text: str, words: re.Pattern[str]) -> list[str]:
    """The lines with a word that is not used."""
    cleaned = NAMES.sub("", text)
    return [f"{number}: {line.strip()}" for number, line in enumerate(cleaned.splitlines(), 1) if words.search(line)]


def test_no_file_uses_a_word_that_the_glossary_rules_out() -> None:
    words = list(forbidden((ROOT / GLOSSARY).read_text(encoding="utf-8")))
    assert len(words) > 40
    found = []
    for path in files():
        here = [word for word in words if not (word == CHANGELOG_ONLY and path.name == "CHANGELOG.md")]
        lines = offenses(path.read_text(encoding="utf-8"), pattern(here))
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert not found, "words that docs/glossary.md rules out:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("a Picture of", True),
        ("def draw_picture():", True),
        ("class Pictures:", True),
        ("normalisation", True),
        ("normalize", False),
        ("depicture", False),
        ('<picture><source media="x">', False),
        ("`make pictures` draws", False),
        ("labels, belly, deskew", False),
    ],
)
def test_words_are_found_in_names_and_not_inside_of_others(text: str, is_found: bool) -> None:
    words = pattern(["picture", "pictures", "normalis…", "bell", "desk"])
    assert bool(offenses(text, words)) == is_found
