"""The page as its user meets it: the process that serves it, and a browser that shows it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from ciphershift.benchmarks.harness.server_process import children, is_running

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ANSWER_MILLISECONDS = 900_000  # of a machine without vector units that others use, too
PATIENCE_MILLISECONDS = 120_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)


@contextmanager
def served(home: Path, *options: str) -> Iterator[str]:
    """The address that `ciphershift page` prints to somebody with this home; ended by the signal that a service manager sends."""
    command = [sys.executable, "-m", "ciphershift", "page", "--no-browser", "--port", "0", *options]
    environment = os.environ | {"HOME": str(home), "CIPHERSHIFT_HOME": str(home / "ciphershift")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("the page is at http://127.0.0.1:"), line
        yield line.removeprefix("the page is at ").strip()
        left = children(process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not [child for child in left if is_running(child)]  # the server beside it ends, too


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium: the system's own, or the one that `playwright install chromium` has brought."""
    with sync_playwright() as playwright:
        program = _program(playwright)
        if program is None:
            pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}, or run `playwright install chromium`")
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox itself as root
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


def _program(playwright: Playwright) -> str | None:
    own = Path(playwright.chromium.executable_path)
    return next(filter(None, map(shutil.which, BROWSERS)), str(own) if own.exists() else None)


def visitor(browser: Browser, **options: object) -> BrowserContext:
    """Somebody with a browser of their own: keys that one page makes are there for the next one."""
    return browser.new_context(**{"reduced_motion": "reduce"} | options)  # type: ignore[arg-type]


def opened(visitor: BrowserContext, address: str) -> Page:
    """The page in a window of its own, with everything on it."""
    page = visitor.new_page()
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    page.goto(address)
    expect(page.get_by_role("button", name="Test image 0: 7")).to_be_visible()
    return page


def draw(page: Page, *strokes: list[tuple[float, float]]) -> None:
    """Draws strokes, each a line through points from 0 to 1, with the pointer."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        for i, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
            if i == 0:
                page.mouse.down()
        page.mouse.up()


def send(page: Page) -> None:
    """Encrypts what is there, and waits for the answer."""
    page.get_by_role("button", name="Encrypt and send").click()
    wait_for_answer(page)


def wait_for_answer(page: Page) -> None:
    """Waits for the answer to be shown."""
    expect(page.locator("#verdict[data-class]")).to_be_visible(timeout=ANSWER_MILLISECONDS)
