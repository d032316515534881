"""Counts the hostile inputs that were tried, by the check that they reached, and prints the counts at the end of a run."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.hostile import Tally

COUNTS = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """The tally of this run."""
    request.config.stash[COUNTS] = Tally()
    yield request.config.stash[COUNTS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the tally."""
    tally = config.stash.get(COUNTS, None)
    if tally is None:
        return
    terminalreporter.section("hostile inputs, by the check that refused them")
    checks = Counter[str]()
    places: dict[str, list[str]] = {}
    for (place, check), count in tally.refused.items():
        checks[check] += count
        places.setdefault(check, []).append(f"{place} {count}")
    for check, count in checks.items():
        terminalreporter.write_line(f"{count:7}  {check}: {', '.join(places[check])}")
    terminalreporter.write_line(
        f"{checks.total():7}  in all, {min(checks.values(), default=0)} or more per check; "
        f"accepted: {len(tally.accepted)}, crashes: {tally.crashes}, hangs: {tally.hangs}"
    )
