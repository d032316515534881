"""Commands that documents show: each is run, or says why not; and each exists, with the options that are shown."""

import re
import shlex

import pytest

from ciphershift.cli import COMMANDS, load
from tests.support.documents import DOCUMENTS, ROOT, Block, blocks, name_of

REASON = re.compile(r"not run: \w.+|run by (\.ci/run|tests/[\w/]+\.py)([:,] .+)?")
# What a shell block begins with: in a block of another language it would be a command that nobody runs.
COMMAND = re.compile(r"^\$? *(python|ciphershift|make|docker|kubectl|pip|git|curl|export(?= [A-Z_]+=)) ", re.MULTILINE)
CALL = re.compile(r"(?<![\w/.-])ciphershift (?=[a-z][a-z-]*(?:\s|$))[^\n]*")  # not the name of a release before a path
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*ciphershift (?!\W)[^`]*)`", re.DOTALL)


def all_blocks() -> list[tuple[str, Block]]:
    return [(name_of(document), block) for document in DOCUMENTS for block in blocks(document)]


def test_every_block_has_a_language_and_commands_stand_in_shell_blocks() -> None:
    found = all_blocks()
    assert len(found) > 20
    for name, block in found:
        assert block.language, f"{name}: a block without a language:\n{block.text}"
        if block.language not in ("sh", "python"):
            assert not COMMAND.search(block.text), f"{name}: a command outside of a sh block:\n{block.text}"


def test_a_block_that_is_not_run_says_why_or_who_runs_it() -> None:
    shown = [(name, block) for name, block in all_blocks() if block.language in ("sh", "python") and not block.is_run]
    assert shown
    for name, block in shown:
        found = REASON.fullmatch(block.comment)
        assert found, f"{name}: before this block, <!-- not run: why --> or <!-- run by tests/… -->:\n{block.text}"
        assert not found[1] or (ROOT / found[1]).is_file(), f"{name}: there is no {found[1]}"


def commands() -> list[tuple[str, str]]:
    """Every call of a command line of ours, in prose and in blocks, with the document's name."""
    found = [
        (name_of(document), " ".join(command.split()))
        for document in DOCUMENTS
        for command in INLINE.findall(document.read_text(encoding="utf-8"))
    ]
    texts = [(name, block.text.replace("\\\n", " ")) for name, block in all_blocks() if block.language == "sh"]
    lines = [(name, line) for name, text in texts for line in text.splitlines()]
    in_blocks = [(name, match[0]) for name, line in lines for match in CALL.finditer(line)]
    return [*found, *in_blocks]


def test_commands_in_documents_exist_with_the_options_that_are_shown() -> None:
    found = commands()
    assert len(found) > 25
    for name, command in found:
        assert not (wrong := unknown(command)), f"{name}: {command}: there is no {wrong}"


def unknown(command: str) -> str:
    """The first word of a call that its command line does not know: a command or an option; empty if it knows all."""
    words = shlex.split(re.split(r" &|\)|\||&&|;|<| \d?>", command)[0])
    name, *rest = words[words.index("ciphershift") + 1 :] or [""]
    if name not in COMMANDS:
        return "" if name in ("--help", "--version") else name
    chosen = load(COMMANDS[name])
    while (commands := getattr(chosen, "commands", None)) and rest and not rest[0].startswith("-"):
        if rest[0] not in commands:
            return rest[0]
        chosen, rest = commands[rest[0]], rest[1:]
    options = {option for parameter in chosen.params for option in parameter.opts} | {"--help"}
    return next((word for word in rest if word.startswith("-") and word != "-" and word not in options), "")


@pytest.mark.parametrize("wrong", ["ciphershift tenant create me", "ciphershift bench noise --model mnist-fast"])
def test_a_command_that_does_not_exist_is_noticed(wrong: str) -> None:
    assert unknown(wrong)
