"""The page in a real browser, with a real server and a real network, as its user goes through it."""

import base64
import hashlib
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageOps
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client
from ciphershift.errors import ForbiddenError
from ciphershift.protocol.container import HEADER_BYTES
from tests.support.demo_page import browser as headless
from tests.support.demo_page import draw, opened, send, served, wait_for_answer

LISTEN = """
  const send = window.fetch;
  window.fetch = async (path, options) => {
    const answer = await send(path, options);
    if (path !== "/api/runs") return answer;
    const [one, other] = answer.body.tee();
    new Response(other).text().then(text => window.heard = text);
    return new Response(one, answer);
  };
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
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Browser, home: Path) -> Iterator[str]:
    with served(home) as printed:
        yield printed
        server = told(printed)["server"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(server)  # the server beside the page ends with it


@pytest.fixture(scope="module")
def known(browser: Browser, home: Path) -> Iterator[tuple[str, str]]:
    """The page of a server that is not its own, so that a test can ask that server: the page's address, and the server's."""
    with running_server() as server, served(home, "--server", server.url) as printed:
        yield printed, server.url


def told(address: str) -> dict[str, str]:
    """What the page is told when it opens."""
    url, token = address.split("#token=")
    content: dict[str, str] = httpx.get(f"{url}api/about", headers={"X-Token": token}).json()
    return content


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page; whatever a browser complains of fails the test."""
    page = opened(browser, address)
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # which the page tells itself
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.context.close()
    assert not complaints


def test_a_test_image_leaves_as_noise_and_comes_back_as_its_digit(page: Page, home: Path) -> None:
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.locator("#prepared-text")).to_have_text("What is encrypted: test image 0, as it is.")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("7")
    expect(page.get_by_role("row", name=re.compile("^7 "))).to_have_class("best")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "330")
    expect(page.locator("#status")).to_have_text("The answer is 7, decrypted on this machine.")
    assert page.locator("#stage-list dt").all_inner_texts() == ["keys", "encrypt", "transfer", "evaluate", "decrypt"]
    expect(page.locator("#keys-folder")).to_have_text(re.compile("^~/ciphershift/client/[0-9a-f]{64}$"))
    assert (home / "ciphershift" / "client").is_dir()
    page.get_by_role("button", name="Compare with the plaintext network").click()
    expect(page.locator("#compared")).to_contain_text("In the clear the network says the same")
    assert len(page.locator("#logits tr td:nth-child(4):not(:empty)").all()) == 10


def test_what_the_server_sees_is_the_ciphertext_and_no_two_are_alike(page: Page) -> None:
    page.add_init_script(LISTEN)
    page.reload()
    digests, images = [], []
    for _ in range(2):
        page.get_by_role("button", name="Test image 2: 1").click()
        send(page)
        sent = next(json.loads(line) for line in page.evaluate("heard").splitlines() if '"sent"' in line)
        ciphertext = np.frombuffer(base64.b64decode(sent["ciphertext"]), dtype=np.uint8)
        digests.append(page.locator("#sent-digest").inner_text())
        assert digests[-1] == hashlib.sha256(ciphertext.tobytes()).hexdigest()
        assert page.locator("#sent-bytes").inner_text().replace("\u202f", "") == str(len(ciphertext))
        images.append(np.asarray(page.locator("#noise").evaluate(PIXELS)).reshape(-1, 4)[: len(ciphertext), 1])
        points = np.corrcoef(ciphertext[HEADER_BYTES:], images[-1][HEADER_BYTES:])[0, 1]
        assert points > 0.999, "each byte is a point as bright as it is large"
    order = [
        "Encrypting…",
        "Sent. The server has the ciphertext and no key for it.",
        "Layer 2 of 6 (relu): 0 of 330 look-ups.",
        "The answer is 1, decrypted on this machine.",
    ]
    said = page.evaluate("said")
    last = said[len(said) - 1 - said[::-1].index("Encrypting…") :]
    assert [text for text in dict.fromkeys(last) if text in order] == order
    assert digests[0] != digests[1]
    first, second = (image[HEADER_BYTES:] for image in images)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_a_digit_drawn_with_the_pointer_is_recognised(page: Page) -> None:
    draw(page, [(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)], [(0.4, 0.5), (0.7, 0.5)])
    expect(page.locator("#prepared-text")).to_contain_text("the drawing, 280×280, now 28×28, centered")
    send(page)
    expect(page.locator("#verdict-class")).to_have_text("7")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#prepared")).to_be_hidden()


def test_a_finger_draws_too(browser: Browser, address: str) -> None:
    page = opened(browser, address, has_touch=True, viewport={"width": 390, "height": 844})
    page.locator("#pad").tap(position={"x": 100, "y": 100})
    expect(page.locator("#prepared-text")).to_contain_text("the drawing")
    page.context.close()


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
    for _ in range(20):  # undo, clear, open, ten test images, send, the help on drawing
        if compare.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#compared")).to_contain_text("In the clear the network says the same")


def test_another_network_is_a_choice_away(page: Page) -> None:
    page.get_by_role("button", name="Test image 0: 7").click()
    page.get_by_label("Network").select_option("mnist-fast")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuemax", "892")
    expect(page.locator("#prepared-text")).to_contain_text("test image 0")


def test_a_file_that_is_no_image_is_said_so(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"})
    expect(page.get_by_role("alert")).to_contain_text("notes.png is not a supported image: use PNG")
    page.get_by_role("button", name="Encrypt and send").click()
    expect(page.locator("#status")).to_have_text("This image cannot be sent: choose another.")
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_stopping_cancels_the_job_on_the_server(browser: Browser, known: tuple[str, str], home: Path) -> None:
    page = opened(browser, known[0])
    page.get_by_label("Network").select_option("mnist-she")
    page.get_by_role("button", name="Test image 0: 7").click()
    page.get_by_role("button", name="Encrypt and send").click()
    expect(page.locator("#sent")).to_be_visible(timeout=60_000)
    expect(page.locator("#track .now")).to_have_count(1)  # the layer that is computed
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_have_class("stop")
    stop.click()
    expect(page.locator("#status")).to_have_text("Stopped. The job on the server was canceled.")
    expect(page.locator("#track .now")).to_have_count(0)
    expect(page.get_by_role("button", name="Encrypt and send")).to_have_class("primary")
    page.context.close()
    with Client(known[1], keystore=home / "ciphershift" / "client") as client:
        job = client.job(client.jobs(1)[0].id)
        assert job.wait(timeout=300).state == "canceled"


def test_the_server_beside_the_page_answers_the_page_only(address: str) -> None:
    """Another web page, or another user of the machine, would need its API key."""
    server = told(address)["server"]
    for method, path in (
        ("GET", "/v2/jobs"),
        ("GET", "/v2/models"),
        ("POST", "/v2/repository/models/mnist-tiny/unload"),
    ):
        assert httpx.request(method, server + path).json()["code"] == "unauthorized", path


def test_on_a_phone_the_answer_is_one_tap_away(browser: Browser, address: str) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844})
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.locator("#jump")).to_be_hidden()
    send(page)
    page.evaluate("window.scrollTo(0, 0)")
    page.get_by_role("link", name="Answer: 7").click()
    expect(page.locator("#verdict-class")).to_be_in_viewport()
    page.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_nothing_keeps_people_out(browser: Browser, address: str, scheme: str, width: int) -> None:
    """The rules of axe: names, roles, contrast; and no scrolling sideways on a telephone."""
    page = opened(browser, address, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page.get_by_role("button", name="Test image 0: 7").click()
    expect(page.locator("#prepared")).to_be_visible()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()


def test_another_web_page_cannot_drive_this_one(browser: Browser, known: tuple[str, str], home: Path) -> None:
    """Neither by a request that needs no leave, nor by one with the token, nor under a name of its own."""
    url, token = known[0].split("#token=")
    attack = f"""<!doctype html><title>waiting</title><script>
      const tries = [
        fetch("{url}api/about", {{ headers: {{ "X-Token": "{token}" }} }}),
        fetch("{url}api/runs", {{ method: "POST", mode: "no-cors", body: "{{}}" }}).then(r => r.text()).then(t => t || Promise.reject()),
      ];
      Promise.allSettled(tries).then(all => document.title = all.map(one => one.status).join());
    </script>"""

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(attack.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with (
        http.server.HTTPServer(("127.0.0.1", 0), Foreign) as foreign,
        Client(known[1], keystore=home / "ciphershift" / "client") as client,
    ):
        thread = threading.Thread(target=foreign.serve_forever, args=(0.02,))
        thread.start()
        before = len(client.jobs())
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{foreign.server_address[1]}/")
        expect(page).to_have_title("rejected,rejected")
        page.close()
        foreign.shutdown()
        thread.join()
        assert len(client.jobs()) == before
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}, {"X-Token": "guessed"}):
        answer = httpx.get(f"{url}api/about", headers={"X-Token": token} | headers)
        assert answer.status_code == 403
        assert answer.json()["code"] == ForbiddenError.code


def test_a_server_that_is_gone_is_said_so_with_the_next_step(browser: Browser, home: Path) -> None:
    with served(home, "--server", "http://127.0.0.1:9") as printed:
        page = browser.new_page()
        page.goto(printed)
        expect(page.get_by_role("alert")).to_contain_text("no answer from http://127.0.0.1:9")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        page.close()
