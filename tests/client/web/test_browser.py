"""The client in a real browser: a page of another origin predicts with a real server, and nothing secret leaves it."""

import base64
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers import simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.crypto.secret_keys import ClientKeys
from ciphershift.he_layers.program import Program
from ciphershift.protocol.container import read_header
from ciphershift.server.settings import ZOO
from tests.client.web.conftest import block, run
from tests.support.demo_page import ANSWER_MILLISECONDS
from tests.support.demo_page import browser as headless
from tests.support.documents import ROOT
from tests.support.secrets import SECRETS, needles, search
from tests.support.tee import Relay, relay

MODEL = "mnist-tiny"
COUNT = 3  # images: more take minutes where the kernel has no vector units
SAMPLES = sorted((Path(__file__).resolve().parents[3] / "client" / "samples").glob("mnist-*.png"))
REPEATS = 20
PREDICT = """
async ([url, model, images]) => {
  const { Client } = await import("/ciphershift.js");
  const stages = new Set(), states = new Set();
  window.client = await Client.connect(url, { model });
  const onProgress = progress => {
    stages.add(progress.stage);
    if (progress.stage === "job") states.add(progress.status.progress.layer);
    if (progress.stage === "upload") window.uploaded = [progress.sent, progress.total];
  };
  const rows = await client.predict(images.map(each => Uint8Array.from(each)), { onProgress });
  return { rows: rows.map(row => Array.from(row)), stages: [...stages], states: [...states], uploaded: window.uploaded ?? null };
}
"""
EXPORT = """
async () => {
  const files = await client.keystore.export(client.profile.params);
  const text = bytes => new Promise(done => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(new Blob([bytes]));
  });
  return Promise.all(["client.keys", "evaluation.keys"].map(name => text(files[name])));
}
"""
DOCUMENT = """<!doctype html><title>as in docs/browser.md</title><canvas width="28" height="28"></canvas>
<button>Send</button> <output></output><script type="module" src="main.js"></script>"""
WORKER = """
  import { BrowserStore, Keystore, ParameterSet } from "/ciphershift.js";
  const keystore = new Keystore(new BrowserStore("shared"), { passphrase: "correct horse" });
  postMessage((await keystore.open(await ParameterSet.get("TOY_N128"))).keyId);
"""
ENTRIES = """
async () => {
  const request = indexedDB.open("ciphershift");
  const database = await new Promise(done => { request.onsuccess = () => done(request.result); });
  const all = name => new Promise(done => {
    const reading = database.transaction(name).objectStore(name).getAll();
    reading.onsuccess = () => done(reading.result);
  });
  const [entries, keys] = [await all("entries"), await all("wrapping")];
  const small = entries.filter(entry => entry.length < 100_000).map(entry => Array.from(entry));
  const raw = await crypto.subtle.exportKey("raw", keys[0]).then(() => "given out", error => error.name);
  return { count: entries.length, small, keys: keys.length, raw };
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as started:
        yield started


@pytest.fixture(scope="module")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(package: Path, site_folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Pages of another origin than the server's, under a policy that lets scripts reach servers alone; and what was asked for."""
    folder = site_folder
    shutil.copytree(package / "examples" / "page", folder / "page")
    for place in (folder, folder / "page"):
        shutil.copy(package / "dist" / "ciphershift.js", place)
    (folder / "document.html").write_text(DOCUMENT)
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    (folder / "worker.js").write_text(WORKER)
    asked: list[str] = []

    class Files(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src http://127.0.0.1:*"
            self.send_header("Content-Security-Policy", policy)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.requestline)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=folder)) as files:
        thread = threading.Thread(target=files.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{files.server_address[1]}", asked
        files.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(site: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(ZOO / MODEL, models / MODEL)
    with running_server(models=models, allowed_origins=site[0]) as process:
        yield process


@pytest.fixture(scope="module")
def relayed(server: ServerProcess) -> Iterator[Relay]:
    with relay(server.url) as between:
        yield between


@pytest.fixture(scope="module")
def page(browser: Browser, site: tuple[str, list[str]]) -> Iterator[Page]:
    page = browser.new_context().new_page()
    page.goto(site[0])
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(path)) for path in SAMPLES[:COUNT]])


@pytest.fixture(scope="module")
def predicted(page: Page, relayed: Relay, images: NDArray[np.uint8]) -> dict[str, Any]:
    """What the page finds on its first visit, with its traffic in the relay."""
    found: dict[str, Any] = page.evaluate(PREDICT, [relayed.url, MODEL, images.reshape(COUNT, -1).tolist()])
    return found


@pytest.fixture(scope="module")
def exported(page: Page, predicted: dict[str, Any]) -> tuple[bytes, bytes]:
    """The page's key files."""
    secret, evaluation = map(base64.b64decode, page.evaluate(EXPORT))
    return secret, evaluation


@pytest.fixture(scope="module")
def client_keys(exported: tuple[bytes, bytes]) -> ClientKeys:
    return ClientKeys.from_bytes(exported[0], params.get(read_header(exported[0]).params_id))


def test_a_page_from_elsewhere_predicts_what_python_predicts(
    predicted: dict[str, Any],
    exported: tuple[bytes, bytes],
    client_keys: ClientKeys,
    server: ServerProcess,
    images: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    """Under the same keys; apart by no more than two simulated noises are."""
    assert predicted["stages"] == ["keys", "upload", "job"]
    assert predicted["uploaded"] == [len(exported[1])] * 2
    assert len(predicted["states"]) > 1
    folder = tmp_path / client_keys.params.id
    folder.mkdir()
    for name, data in zip(("client.keys", "evaluation.keys"), exported, strict=True):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    with Client(server.url, model=MODEL, keystore=Keystore(tmp_path)) as client:
        here = client.predict(images)
    there = np.array(predicted["rows"])
    program = Program.load(ZOO / MODEL)
    rng = np.random.default_rng(3)
    runs = np.stack([simulate.run(program, client_keys.params, images[:, None], rng) for _ in range(REPEATS)])
    # Of 30 differences, each of 1.4 deviations; std from 20 runs.
    assert np.abs((there - here) / runs.std(axis=0)).max() < 8.0
    assert there.argmax(axis=1).tolist() == [int(path.stem[-1]) for path in SAMPLES[:COUNT]]


def test_no_byte_that_leaves_the_page_is_a_secrets(
    predicted: dict[str, Any],
    exported: tuple[bytes, bytes],
    client_keys: ClientKeys,
    relayed: Relay,
    site: tuple[str, list[str]],
) -> None:
    wanted = needles(client_keys)
    assert search(exported[0], wanted) == {
        f"{name}, packed as in the key file" for name in SECRETS
    }  # it would be found
    assert len(relayed.sent) > len(exported[1])
    assert search(bytes(relayed.sent), wanted) == set()
    assert {line.split()[0] for line in site[1]} == {"GET"}
    assert {line.split()[1] for line in site[1]} <= {"/", "/ciphershift.js", "/favicon.ico"}


def test_the_page_of_the_document_predicts(
    page: Page,
    predicted: dict[str, Any],
    site: tuple[str, list[str]],
    site_folder: Path,
    server: ServerProcess,
    package: Path,
    tmp_path: Path,
) -> None:
    """Bundled as a project that has installed the package."""
    code = block(ROOT / "docs" / "browser.md", "main.js").replace("http://127.0.0.1:8000", server.url)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "ciphershift").symlink_to(package)
    (tmp_path / "main.js").write_text(code)
    bundler = package / "node_modules" / ".bin" / "esbuild"
    run(bundler, "main.js", "--bundle", "--format=esm", f"--outfile={site_folder / 'main.js'}", cwd=tmp_path)
    other = page.context.new_page()
    other.goto(f"{site[0]}/document.html")
    draw_into_canvas(other, SAMPLES[0])
    expect(other.locator("output")).to_have_text("")
    other.get_by_role("button", name="Send").click()
    expect(other.locator("output")).to_have_text(SAMPLES[0].stem[-1], timeout=ANSWER_MILLISECONDS)
    other.close()


def draw_into_canvas(page: Page, image: Path) -> None:
    """Brings an image into the page's only canvas."""
    page.evaluate(
        """async data => {
          const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
          const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
          document.querySelector("canvas").getContext("2d").drawImage(image, 0, 0);
        }""",
        base64.b64encode(image.read_bytes()).decode(),
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_the_example_page_predicts_and_keeps_nobody_out(
    browser: Browser,
    page: Page,
    predicted: dict[str, Any],
    site: tuple[str, list[str]],
    relayed: Relay,
    scheme: str,
    width: int,
) -> None:
    """An image that is chosen by the keyboard's way, the rules of axe, no scrolling sideways on a telephone."""
    other = page.context.new_page()
    other.set_viewport_size({"width": width, "height": 800})
    other.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    complaints: list[str] = []
    other.on("pageerror", lambda error: complaints.append(str(error)))
    other.goto(f"{site[0]}/page/?server={relayed.url}")
    expect(other.get_by_role("button", name="Encrypt and send")).to_be_enabled()
    other.get_by_label("Or an image").set_input_files(SAMPLES[0])
    other.get_by_role("button", name="Encrypt and send").click()
    expect(other.locator("#status")).to_contain_text(
        f"The answer is {SAMPLES[0].stem[-1]}, decrypted here.", timeout=ANSWER_MILLISECONDS
    )
    assert other.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(other)
    assert results.violations_count == 0, results.generate_report()
    assert not complaints
    other.close()


def test_keys_rest_under_a_key_that_the_browser_does_not_give_out(
    page: Page, predicted: dict[str, Any], client_keys: ClientKeys, relayed: Relay
) -> None:
    rest = page.evaluate(ENTRIES)
    assert (rest["count"], rest["keys"], rest["raw"]) == (2, 1, "InvalidAccessError")
    (sealed,) = map(bytes, rest["small"])
    assert search(sealed, needles(client_keys)) == set()
    page.reload()  # another visit: the same keys, nothing made or sent anew
    again = page.evaluate(PREDICT, [relayed.url, MODEL, [[0] * 784]])
    assert again["stages"] == ["job"]
    page.evaluate("client.keystore.erase(client.profile.params)")
    assert page.evaluate(ENTRIES)["count"] == 0


def test_workers_make_keys_and_two_that_do_so_at_once_end_up_with_one_pair(page: Page) -> None:
    """Under a passphrase and TOY parameters, which are quick."""
    made = page.evaluate("""
      () => Promise.all([1, 2].map(() => new Promise((resolve, reject) => {
        const worker = new Worker("/worker.js", { type: "module" });
        worker.onmessage = event => { worker.terminate(); resolve(event.data); };
        worker.onerror = event => reject(new Error(event.message));
      })))
    """)
    assert len(set(made)) == 1


def test_a_server_that_does_not_allow_the_page_is_said_so(page: Page, zoo: Path) -> None:
    with running_server(models=zoo, allow_toy_parameters=True) as closed:
        said = page.evaluate(
            "async url => (await import('/ciphershift.js')).Client.connect(url).then(() => [], e => [e.code, e.message])",
            closed.url,
        )
    assert said[0] == "unreachable"
    assert "CIPHERSHIFT_ALLOWED_ORIGINS" in said[1]
