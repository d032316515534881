"""The page in Firefox: keys, encryption and decryption there as in Chromium, in which everything else is tested."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.server.settings import ZOO

FIREFOX = ("firefox-esr", "firefox")
SCRIPT = """
  import puppeteer from "puppeteer-core";
  const [executablePath, url] = process.argv.slice(1);
  const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, timeout: 120_000 });
  try {
    const page = await browser.newPage(), complaints = [];
    page.setDefaultTimeout(120_000);
    page.on("pageerror", error => complaints.push(String(error)));
    await page.goto(url);
    await (await page.waitForSelector("button[aria-label='Test image 0: 7']")).click();
    await page.waitForFunction(() => document.getElementById("status").textContent === "Ready to encrypt.");
    await page.click("#send");
    await page.waitForSelector("#verdict[data-class]");
    const found = await page.evaluate(async () => {
      const opening = indexedDB.open("ciphershift");
      await new Promise(done => { opening.onsuccess = done; });
      const all = name => new Promise(done => {
        const reading = opening.result.transaction(name).objectStore(name).getAll();
        reading.onsuccess = () => done(reading.result);
      });
      const [key] = await all("wrapping");
      return {
        digit: document.getElementById("verdict").dataset.class,
        entries: (await all("entries")).length,
        raw: await crypto.subtle.exportKey("raw", key).then(() => "given out", error => error.name),
      };
    });
    console.log(JSON.stringify({ ...found, complaints }));
  } finally {
    await browser.close();
  }
"""


@pytest.mark.slow  # the same page in a second browser
def test_the_page_predicts_in_firefox(node: Callable[..., Any], tmp_path: Path) -> None:
    program = next(filter(None, map(shutil.which, FIREFOX)), None)
    if program is None:
        pytest.skip(f"no Firefox: install one of {', '.join(FIREFOX)}")
    shutil.copytree(ZOO / "mnist-tiny", tmp_path / "mnist-tiny")
    with running_server(models=tmp_path, page=True) as server:
        found = node(SCRIPT, program, f"{server.url}/page/")
    assert found == {"digit": "7", "entries": 2, "raw": "InvalidAccessError", "complaints": []}
