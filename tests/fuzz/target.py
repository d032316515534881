"""What the targets share: how they are run, and choices that follow from bytes."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import atheris

FOUND = Path("build/fuzz")
PER_INPUT_SECONDS = 60
"""A hang, not a measurement."""
DEEPEST = 6
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    255,
    256,
    2**31,
    -(2**31),
    2**53,
    2**63,
    2**64,
    1e-320,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
)


def run(name: str, one: Callable[[bytes], None], seeds: Sequence[bytes], packages: Sequence[str]) -> None:
    """Runs a target with libFuzzer's options of the command line, from its seeds on; led by what is run of these packages."""
    corpus = FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    _instrument(packages)
    options = [
        f"-timeout={PER_INPUT_SECONDS}",
        "-max_len=65536",
        "-print_final_stats=1",
        *sys.argv[1:],
    ]
    atheris.Setup([name, *options, f"-artifact_prefix={FOUND}/{name}-", str(corpus)], one)
    atheris.Fuzz()


def _instrument(packages: Sequence[str]) -> None:
    """Not atheris.instrument_imports, which does not see through the loader of an editable installation."""
    for name, module in list(sys.modules.items()):
        if name.startswith(tuple(packages)):
            for value in list(vars(module).values()):
                parts = list(vars(value).values()) if isinstance(value, type) else [value]
                for part in parts:
                    function = getattr(part, "__func__", getattr(part, "fget", part))
                    if inspect.isfunction(function) and function.__module__ == name:
                        atheris.instrument_func(function)


def changed(choose: atheris.FuzzedDataProvider, value: Any, depth: int = 0) -> Any:
    """A JSON value with something else in one place."""
    if isinstance(value, dict) and value and depth < DEEPEST and choose.ConsumeIntInRange(0, 9):
        key = sorted(value)[choose.ConsumeIntInRange(0, len(value) - 1)]
        if choose.ConsumeIntInRange(0, 9) == 0:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: changed(choose, value[key], depth + 1)}
    if isinstance(value, list) and value and depth < DEEPEST and choose.ConsumeIntInRange(0, 9):
        place = choose.ConsumeIntInRange(0, len(value) - 1)
        return [*value[:place], changed(choose, value[place], depth + 1), *value[place + 1 :]]
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: NUMBERS[choose.ConsumeIntInRange(0, len(NUMBERS) - 1)],
        lambda: choose.ConsumeInt(8),
        lambda: choose.ConsumeUnicode(40),
        # Not lists of lists of lists: five times each, twelve deep, would be a text of a gigabyte.
        lambda: [changed(choose, value, DEEPEST)] * choose.ConsumeIntInRange(0, 5) if depth < DEEPEST else [],
        lambda: {choose.ConsumeUnicode(8): value},
        lambda: None,
        lambda: True,
    )
    return kinds[choose.ConsumeIntInRange(0, len(kinds) - 1)]()
