"""The page in a real browser, with a real server and a real network, as its user goes through it."""

import hashlib
import http.server
import io
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageOps
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, expect

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client, Keystore
from ciphershift.he_layers.crypto import params
from ciphershift.protocol.container import HEADER_BYTES, Kind, read_header
from ciphershift.protocol.tensors import HEADER_LENGTH
from ciphershift.server.settings import ZOO
from tests.support import other_inputs
from tests.support.demo_page import ANSWER_MILLISECONDS, draw, opened, send, served, visitor, wait_for_answer
from tests.support.demo_page import browser as headless

LISTEN = """
  window.said = [];
  addEventListener("DOMContentLoaded", () => {
    const status = document.getElementById("status");
    const note = change => said.push(...Array.from(change.addedNodes, node => node.textContent));
    new MutationObserver(changes => changes.forEach(note)).observe(status, { childList: true });
  });
"""
PIXELS = "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
SAMPLES = Path(__file__).resolve().parents[2] / "client" / "samples"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as started:
        yield started


@pytest.fixture(scope="module")
def someone(browser: Browser) -> BrowserContext:
    """A visitor of all pages, who makes keys once for each of them."""
    return visitor(browser)


@pytest.fixture(scope="module")
def address(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`ciphershift page`, with a server of its own."""
    models = tmp_path_factory.mktemp("models")
    for name in ("mnist-tiny", "mnist-fast"):
        shutil.copytree(ZOO / name, models / name)
    with served(tmp_path_factory.mktemp("home"), "--models", str(models)) as printed:
        yield printed


@pytest.fixture(scope="module")
def hosted(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that serves the page, and networks of other inputs than digits."""
    models = tmp_path_factory.mktemp("models")
    other_inputs.save(models)
    for name in ("mnist-she", "breast-cancer"):
        shutil.copytree(ZOO / name, models / name)
    with running_server(models=models, page=True) as server:
        yield server.url


@pytest.fixture
def page(someone: BrowserContext, address: str) -> Iterator[Page]:
    """The page of `ciphershift page`; whatever a browser complains of fails the test."""
    yield from _watched(opened(someone, address))


@pytest.fixture
def hosted_page(someone: BrowserContext, hosted: str) -> Iterator[Page]:
    """The page that a server serves."""
    page = someone.new_page()
    page.goto(f"{hosted}/page/")
    yield from _watched(page)


def _watched(page: Page) -> Iterator[Page]:
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # which the page tells itself
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert not complaints


def test_a_test_image_leaves_as_noise_and_comes_back_as_its_digit(page: Page) -> None:
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.locator("#prepared-text")).to_have_text("What is encrypted: test image 0, as it is.")
    expect(page.locator("#prepared canvas")).to_have_css("outline-style", "solid")
    away = page.locator(".panel.away").filter(has_text="not trusted")
    expect(away).to_have_css("border-top-style", "dashed")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("7")
    expect(page.get_by_role("row", name=re.compile("^7 "))).to_have_class("best")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "330")
    expect(page.locator("#status")).to_have_text("The answer is 7, decrypted in this browser.")
    assert page.locator("#stage-list dt").all_inner_texts() == ["keys", "encrypt", "transfer", "evaluate", "decrypt"]
    page.get_by_role("button", name="Compare with the plaintext network").click()
    expect(page.locator("#compared")).to_contain_text("In the clear the network says the same")
    assert len(page.locator("#logits tr td:nth-child(4):not(:empty)").all()) == 10


def test_what_the_server_sees_is_the_ciphertext_and_no_two_are_alike(page: Page) -> None:
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request) if request.url.endswith("/jobs") else None)
    page.add_init_script(LISTEN)
    page.reload()
    digests, images = [], []
    for _ in range(2):
        page.get_by_role("button", name="Test image 2: 1").click()
        send(page)
        ciphertext = sent_ciphertext(requests[-1])
        digests.append(page.locator("#sent-digest").inner_text())
        assert digests[-1] == hashlib.sha256(ciphertext.tobytes()).hexdigest()
        assert page.locator("#sent-bytes").inner_text().replace("\u202f", "") == str(len(ciphertext))
        images.append(np.asarray(page.locator("#noise").evaluate(PIXELS)).reshape(-1, 4)[: len(ciphertext), 1])
        points = np.corrcoef(ciphertext[HEADER_BYTES:], images[-1][HEADER_BYTES:])[0, 1]
        assert points > 0.999, "each byte is a point as bright as it is large"
    order = [
        "Encrypting…",
        "Sent. The server has the ciphertext and no key for it.",
        "Layer 2 of 8 (crelu): 0 of 330 look-ups.",
        "The answer is 1, decrypted in this browser.",
    ]
    said = page.evaluate("said")
    last = said[len(said) - 1 - said[::-1].index("Encrypting…") :]
    assert [text for text in dict.fromkeys(last) if text in order] == order
    assert digests[0] != digests[1]
    first, second = (image[HEADER_BYTES:] for image in images)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def sent_ciphertext(request: Request) -> np.ndarray:
    """The container in the body of a job: behind the JSON and four bytes of length."""
    body = request.post_data_buffer
    assert body is not None
    container = body[int(request.headers[HEADER_LENGTH.lower()]) + 4 :]
    assert read_header(container).kind == Kind.CKKS_CIPHERTEXT
    return np.frombuffer(container, dtype=np.uint8)


def test_a_digit_drawn_with_the_pointer_is_recognized(page: Page) -> None:
    draw(page, [(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)], [(0.4, 0.5), (0.7, 0.5)])
    expect(page.locator("#prepared-text")).to_contain_text("the drawing, 280×280, now 28×28, centered")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("7")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#prepared")).to_be_hidden()


def test_a_finger_draws_too(browser: Browser, address: str) -> None:
    with visitor(browser, has_touch=True, viewport={"width": 390, "height": 844}) as phone:
        page = opened(phone, address)
        page.locator("#pad").tap(position={"x": 100, "y": 100})
        expect(page.locator("#prepared-text")).to_contain_text("the drawing")


def test_a_dropped_photograph_is_made_to_fit(page: Page) -> None:
    digit = ImageOps.invert(Image.open(SAMPLES / "mnist-3-is-0.png")).resize((280, 280))
    paper = Image.new("L", (640, 400), 235)
    paper.paste(digit.point(lambda value: min(value, 235)), (300, 60))
    file = io.BytesIO()
    paper.save(file, "JPEG")
    transfer = page.evaluate_handle(
        "bytes => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(bytes)], 'note.jpg', { type: 'image/jpeg' })); return t }",
        list(file.getvalue()),
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.locator("#prepared-text")).to_contain_text("note.jpg, 640×400, now 28×28, centered, inverted")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("0")


def test_the_keyboard_alone_draws_and_sends(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the drawing")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("application", name="Draw a digit")).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_have_text("Pen down.")
    for _ in range(11):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#prepared-text")).to_contain_text("the drawing")
    page.keyboard.press("Enter")
    wait_for_answer(page)
    expect(page.locator("#verdict-class")).to_have_text("1")
    compare = page.get_by_role("button", name="Compare with the plaintext network")
    for _ in range(20):  # undo, clear, open, ten examples, send, the help on drawing
        if compare.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#compared")).to_contain_text("In the clear the network says the same")


def test_another_network_is_a_choice_away(page: Page) -> None:
    page.get_by_role("button", name="Test image 0: 7").click()
    page.get_by_label("Network").select_option("mnist-fast")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuemax", "992")
    expect(page.locator("#prepared-text")).to_contain_text("test image 0")


def test_a_file_that_is_no_image_is_said_so(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"})
    expect(page.get_by_role("alert")).to_contain_text("notes.png is no image that this browser can read: use PNG")
    page.get_by_role("button", name="Encrypt and send").click()
    expect(page.locator("#status")).to_have_text("This input cannot be sent: choose another.")
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_table_has_fields_and_is_answered(hosted_page: Page) -> None:
    """On the page that the server serves: with the names and ranges that the model's profile gives. First is one to draw for."""
    page = hosted_page
    expect(page.get_by_label("Network")).to_have_value("mnist-she")
    page.get_by_label("Network").select_option("table")
    expect(page.locator("#pad")).to_be_hidden()
    page.get_by_role("button", name="Row 1: low").click()
    assert [box.input_value() for box in page.get_by_role("spinbutton").all()] == ["0", "3.5", "0.9", "80"]
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("low")
    expect(
        page.get_by_role("button", name="Compare with the plaintext network")
    ).to_be_hidden()  # no copy of it is here
    for name, value in {"length": "50", "width": "40", "dose": "-1", "age": "99"}.items():
        page.get_by_role("spinbutton", name=name).fill(value)
    expect(page.locator("#status")).to_have_text("age is 99; the model takes 20 to 80.")
    page.get_by_role("button", name="Encrypt and send").click()
    expect(page.locator("#status")).to_have_text("Not sent: age is 99; the model takes 20 to 80.")
    page.get_by_role("spinbutton", name="age").fill("20")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("high")
    page.locator("#file").set_input_files({"name": "row.csv", "mimeType": "text/csv", "buffer": b"1, 2, 3\n"})
    expect(page.get_by_role("alert")).to_contain_text("the model takes 4 numbers, the file has 3")


def test_a_sequence_has_a_line_for_each_step_and_is_padded(hosted_page: Page) -> None:
    page = hosted_page
    page.get_by_label("Network").select_option("sequences")
    page.get_by_role("button", name="Two steps: short falling").click()
    steps = page.get_by_role("textbox", name="1 to 4 steps, a line each, of 2 numbers")
    expect(steps).to_have_value("0.9 30\n-0.9 0")
    steps.fill("0.9, 1\n" * 5)
    expect(page.locator("#status")).to_have_text("the model takes 1 to 4 steps, a line each; here are 5.")
    steps.fill("0.9 1\n0.9")
    expect(page.locator("#status")).to_have_text("each step takes 2 numbers; step 2 has 1.")
    text = b"change,age\n-0.9,1\n-0.9,2\n0.9,3\n"
    page.locator("#file").set_input_files({"name": "steps.csv", "mimeType": "text/csv", "buffer": text})
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("long rising")


def test_a_row_of_the_shipped_table_is_answered(hosted_page: Page) -> None:
    page = hosted_page
    page.get_by_label("Network").select_option("breast-cancer")
    page.get_by_role("button", name="Malignant 1: M").click()
    expect(page.get_by_role("spinbutton", name="mean radius")).to_have_value("27.22")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("M")


def test_a_scan_is_taken_by_its_middle_and_answered(hosted_page: Page) -> None:
    page = hosted_page
    page.get_by_label("Network").select_option("scan")
    expect(page.get_by_role("img", name="The chosen image")).to_be_visible()  # nothing to draw on
    page.get_by_role("button", name="Scan 1: bright top").click()
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("bright top")
    scan = io.BytesIO()
    middle = np.repeat(np.array([40, 220], dtype=np.uint8), 100)[:, None]
    Image.fromarray(np.hstack([np.full((200, 100), 255, np.uint8), np.repeat(middle, 200, axis=1)])).save(scan, "PNG")
    page.locator("#file").set_input_files({"name": "scan.png", "mimeType": "image/png", "buffer": scan.getvalue()})
    expect(page.locator("#prepared-text")).to_have_text("What is encrypted: scan.png, 300×200, now 16×16.")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("bright bottom")


def test_a_network_chosen_twice_leaves_the_examples_under_the_pointer(someone: BrowserContext, hosted: str) -> None:
    """What the server says of the inputs comes back once before the button is pressed, and once before it is let go."""
    page = someone.new_page()
    held: list[Route] = []
    page.route("**/mnist-she/inputs", lambda route: held.append(route))
    with page.expect_request("**/mnist-she/inputs"):
        page.goto(f"{hosted}/page/")
    with page.expect_request("**/mnist-she/inputs"):
        page.get_by_label("Network").select_option("mnist-she")  # which it is already
    held[0].continue_()
    seven = page.get_by_role("button", name="Test image 0: 7")
    seven.hover()
    page.mouse.down()
    with page.expect_event("requestfinished"):
        held[1].continue_()
    page.wait_for_timeout(1000)
    page.mouse.up()
    expect(page.locator("#prepared-text")).to_have_text("What is encrypted: test image 0, as it is.")
    expect(seven).to_have_attribute("aria-pressed", "true")
    page.close()


def test_stopping_cancels_the_job_on_the_server(hosted_page: Page, hosted: str, tmp_path: Path) -> None:
    page = hosted_page
    page.get_by_label("Network").select_option("mnist-she")
    page.get_by_role("button", name="Test image 0: 7").click()
    page.get_by_role("button", name="Encrypt and send").click()
    expect(page.locator("#sent")).to_be_visible(timeout=ANSWER_MILLISECONDS)
    expect(page.locator("#track .now")).to_have_count(1)  # the layer that is computed
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_have_class("stop")
    stop.click()
    expect(page.locator("#status")).to_have_text("Stopped. The job on the server was canceled.")
    expect(page.locator("#track .now")).to_have_count(0)
    expect(page.get_by_role("button", name="Encrypt and send")).to_have_class("primary")
    with Client(hosted, keystore=tmp_path / "client") as client:
        job = client.job(client.jobs(1)[0].id)
        assert job.wait(timeout=ANSWER_MILLISECONDS / 1000).state == "canceled"


def test_keys_are_put_under_a_passphrase_carried_away_and_brought_back(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    """By a visitor of its own, by the keyboard where there is a dialog; Python opens the files that were carried away."""
    entries = """async () => {
      const opening = indexedDB.open("ciphershift");
      await new Promise(done => { opening.onsuccess = done; });
      const counting = opening.result.transaction("entries").objectStore("entries").count();
      return new Promise(done => { counting.onsuccess = () => done(counting.result); });
    }"""
    with visitor(browser, accept_downloads=True) as other:
        page = opened(other, address)
        state = page.locator("#keys-state")
        expect(state).to_have_text("They are made with the first input, in a few seconds.")
        for name in ("Forget the keys", "Export…"):
            expect(page.get_by_role("button", name=name)).to_be_hidden()
        page.get_by_role("button", name="Test image 0: 7").click()
        send(page)
        assert page.evaluate(entries) == 2

        page.get_by_role("button", name="Put them under a passphrase…").click()
        page.keyboard.type("correct horse")
        page.keyboard.press("Tab")
        page.keyboard.type("correct house")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()  # the two are not the same
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.type("correct horse")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(state).to_have_text("They are under your passphrase.")

        page.get_by_role("button", name="Export…").click()
        expect(page.get_by_role("link", name="client.keys")).to_be_focused()
        folder = tmp_path / page.locator("#key-folder").inner_text()
        for name in ("client.keys", "evaluation.keys"):
            with page.expect_download() as download:
                page.get_by_role("link", name=name).click()
            download.value.save_as(folder / name)
        folder.chmod(0o700)
        (folder / "client.keys").chmod(0o600)
        pair = Keystore(tmp_path, passphrase="correct horse").open(params.get(folder.name))

        page.get_by_role("button", name="Forget the keys").click()
        expect(state).to_contain_text("They are forgotten")
        assert page.evaluate(entries) == 0
        page.locator("#key-files").set_input_files(folder / "client.keys")
        expect(page.get_by_role("alert")).to_contain_text("choose client.keys and evaluation.keys of one pair together")
        page.locator("#key-files").set_input_files([folder / "client.keys", folder / "evaluation.keys"])
        expect(page.get_by_role("dialog", name="The keys are under a passphrase")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#status")).to_have_text("Not done: the keys stay closed without their passphrase.")
        page.locator("#key-files").set_input_files([folder / "client.keys", folder / "evaluation.keys"])
        expect(page.get_by_role("dialog", name="The keys are under a passphrase")).to_be_visible()
        page.keyboard.type("correct horse")
        page.keyboard.press("Enter")
        expect(state).to_have_text("They were taken in from your files. They are under your passphrase.")

        page.reload()  # nothing opens them any more but the passphrase
        page.get_by_role("button", name="Test image 0: 7").click()
        page.get_by_role("button", name="Encrypt and send").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.type("another")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("the passphrase does not open the secret keys")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.type("correct horse")
        with page.expect_request(lambda request: request.url.endswith("/jobs")) as sent:
            page.keyboard.press("Enter")
        wait_for_answer(page)
        expect(page.locator("#verdict-class")).to_have_text("7")
    assert read_header(sent_ciphertext(sent.value).tobytes()).key_id == pair.key_id


def test_on_a_phone_the_answer_is_one_tap_away(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.locator("#jump")).to_be_hidden()
    send(page)
    page.evaluate("window.scrollTo(0, 0)")
    page.get_by_role("link", name="Answer: 7").click()
    expect(page.locator("#verdict-class")).to_be_in_viewport()


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
@pytest.mark.parametrize("network", ["digits", "table"])
def test_nothing_keeps_people_out(
    browser: Browser, address: str, hosted: str, scheme: str, width: int, network: str
) -> None:
    """The rules of axe: names, roles, contrast; and no scrolling sideways on a telephone."""
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "bypass_csp": True}
    with visitor(browser, **options) as other:
        page = other.new_page()
        page.goto(address if network == "digits" else f"{hosted}/page/")
        if network == "table":
            page.get_by_label("Network").select_option("table")
        page.get_by_role("button", name="Test image 0: 7" if network == "digits" else "Row 1: low").click()
        expect(page.locator("#prepared")).to_be_visible()
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_another_web_page_cannot_drive_this_one(browser: Browser, address: str) -> None:
    """Neither by a request that needs no leave, nor by one with the key."""
    url, key = address.split("#key=")
    attack = f"""<!doctype html><title>waiting</title><script>
      const tries = [
        fetch("{url}v2/models", {{ headers: {{ Authorization: "Bearer {key}" }} }}),
        fetch("{url}plaintext", {{ method: "POST", mode: "no-cors", body: "0" }}).then(r => r.text()).then(t => t || Promise.reject()),
      ];
      Promise.allSettled(tries).then(all => document.title = all.map(one => one.status).join());
    </script>"""

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(attack.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        thread = threading.Thread(target=foreign.serve_forever, args=(0.02,))
        thread.start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{foreign.server_address[1]}/")
        expect(page).to_have_title("rejected,rejected")
        page.close()
        foreign.shutdown()
        thread.join()
    bearer = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{url}v2/models", headers=bearer).is_success
    for headers in (
        bearer | {"Origin": "http://elsewhere.example"},
        bearer | {"Host": "elsewhere.example"},
        {"Authorization": "Bearer guessed"},
    ):
        assert httpx.get(f"{url}v2/models", headers=headers).status_code in (401, 403)


def test_a_page_without_its_key_asks_for_it(browser: Browser, address: str) -> None:
    url, key = address.split("#key=")
    with visitor(browser) as other:
        page = other.new_page()
        page.goto(url)
        expect(page.get_by_role("alert")).to_contain_text("the token is missing or wrong")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("button", name="Test image 0: 7")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone_is_said_so_with_the_next_step(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, "--server", "http://127.0.0.1:9") as printed:
        page = browser.new_page()
        page.goto(printed)
        expect(page.get_by_role("alert")).to_contain_text("no answer from http://127.0.0.1:9")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        page.close()
