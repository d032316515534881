"""Images of the page for the documentation: ``python tests/end_to_end/screenshots.py [FOLDER]``, by default docs/images."""

import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import ViewportSize, expect

from tests.support.demo_page import browser, draw, opened, send, served, visitor

SHOTS: dict[str, tuple[ViewportSize, Literal["light", "dark"]]] = {
    "page": ({"width": 1280, "height": 900}, "light"),
    "page-dark": ({"width": 1280, "height": 900}, "dark"),
    "page-narrow": ({"width": 390, "height": 844}, "light"),
}
SEVEN = (
    [(0.24, 0.24), (0.4, 0.2), (0.6, 0.2), (0.76, 0.18), (0.66, 0.4), (0.55, 0.6), (0.47, 0.86)],
    [(0.4, 0.52), (0.72, 0.48)],
)


def take(folder: Path) -> None:
    """Draws a seven, sends it, compares with the plaintext network, and takes an image; in each way of SHOTS."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, browser() as chromium, served(Path(home)) as address:
        someone = visitor(chromium)
        first = opened(someone, address)
        first.get_by_role("button", name="Test image 0: 7").click()
        send(first)  # makes the keys, so that the images show the time of every later prediction
        first.close()
        for name, (viewport, scheme) in SHOTS.items():
            page = opened(someone, address)
            page.set_viewport_size(viewport)
            page.emulate_media(color_scheme=scheme)
            draw(page, *SEVEN)
            expect(page.locator("#prepared")).to_be_visible()
            send(page)
            page.get_by_role("button", name="Compare with the plaintext network").click()
            expect(page.locator("#compared")).not_to_be_empty()
            page.mouse.move(0, 0)
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            page.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "docs" / "images")
