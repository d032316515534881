"""Common architectures: the table in the documentation is what conversion says of them."""

import pytest

from tests.support.architectures import ALL, PAGE, written

REFUSED = ("ConvNeXt-like", "CapsNet", "ViT")


@pytest.mark.slow
def test_the_table_in_the_documentation_is_what_conversion_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run python -m tests.support.architectures and commit docs/architectures.md"
    assert len(ALL) >= 30
    assert page.count("equal before rounding;") == len(ALL) - len(REFUSED)
    assert all(f"| {name} |" in page for name in REFUSED)
