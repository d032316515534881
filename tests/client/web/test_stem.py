"""A model with a public part, by the client in JavaScript: in Node, in a page of another origin, and on the page that the server serves."""

import base64
import functools
import http.server
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import expect

from ciphershift.benchmarks.harness.server_process import ServerProcess, running_server
from ciphershift.he_layers import onnx_file, simulate
from ciphershift.he_layers.crypto import params
from ciphershift.he_layers.program import Program
from ciphershift.protocol import site
from tests.support import stems
from tests.support.demo_page import ANSWER_MILLISECONDS, send
from tests.support.demo_page import browser as headless

IMAGES = np.random.default_rng(4).integers(0, 256, (2, *stems.RAW), dtype=np.uint8)
PIXELS = json.dumps(IMAGES.reshape(2, -1).tolist())
FILE = f"stems/{stems.stem().sha256}.onnx"
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' http://127.0.0.1:*"
CONNECT = """
  import { Client, Keystore } from "./dist/index.js";
  import { FolderStore } from "./dist/node.js";
  const [url, folder, images] = process.argv.slice(1);
  const pixels = JSON.parse(images).map(each => Uint8Array.from(each));
  const keystore = new Keystore(new FolderStore(folder));
  let loaded = 0;
  const onnxruntime = () => { loaded++; return import("onnxruntime-web"); };
  const options = { keystore, allowToyParameters: true, onnxruntime };
  const codeOf = work => work.then(() => "no error", error => error.code);
"""


@pytest.fixture(scope="module")
def program(tiny_program: Program) -> Program:
    return replace(tiny_program, name="with-stem", stem=stems.stem())


@pytest.fixture(scope="module")
def serving(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("stems")
    program.save(folder / program.name)
    settings = {"allow_toy_parameters": True, "engine": "local://?threads=1", "allowed_origins": "*"}
    with running_server(models=folder, **settings) as process:
        yield process


@pytest.fixture(scope="module")
def near(program: Program) -> Callable[[list[list[float]]], bool]:
    """Whether logits are those of both parts, within the noise."""
    expected = simulate.plain(program, IMAGES) * program.output.scale
    toy = params.get(program.params)
    noise = np.stack([simulate.run(program, toy, IMAGES, np.random.default_rng(i)) for i in range(20)])
    most = 8 * noise.std(axis=0).max()
    assert np.abs(expected - expected.mean()).max() > most  # the test tells answers apart
    return lambda logits: bool(np.abs(np.array(logits) - expected).max() < most)


def test_the_answer_is_that_of_both_parts(
    node: Callable[..., Any], serving: ServerProcess, near: Callable[..., bool], tmp_path: Path
) -> None:
    """The file is kept as Python keeps it, and a damaged copy is fetched again; the runtime is asked for when it is needed."""
    found = node(
        f"""{CONNECT}
        import {{ readFile, writeFile }} from "node:fs/promises";
        const client = await Client.connect(url, options), before = loaded;
        const rows = await client.predict(pixels);
        const kept = `${{folder}}/{FILE}`, right = await readFile(kept);
        await writeFile(kept, "something else");
        const job = await (await Client.connect(url, options)).submit(pixels);
        const again = await job.result();
        await client.close();
        console.log(JSON.stringify({{
          rows: rows.map(row => Array.from(row)), again: again.map(row => Array.from(row)), before, loaded,
          shapes: [client.profile.sampleShape, client.profile.inputShape],
          same: [right, await readFile(kept)].map(each => each.toString("base64")),
          codes: [
            await codeOf((await Client.connect(url, {{ ...options, onnxruntime: undefined }})).predict(pixels)),
            await codeOf((await Client.connect(url, options)).predict(new Uint8Array(64))),
          ],
        }}));
        """,
        serving.url,
        tmp_path,
        PIXELS,
    )
    assert near(found["rows"])
    assert near(found["again"])
    assert (found["before"], found["loaded"]) == (0, 2)
    assert found["shapes"] == [list(stems.RAW), list(stems.SHAPE)]
    assert found["same"] == [base64.b64encode(stems.stem().onnx).decode()] * 2
    assert found["codes"] == ["configuration", "bad_shape"]


def test_files_that_are_more_than_arithmetic_are_refused_as_in_python(node: Callable[..., Any], tmp_path: Path) -> None:
    good = stems.stem().onnx
    by_runtime = {  # which finds by itself that the output that a file states is not the one that it has, or cannot be known
        "1x1x8x8 is wanted": "is refused by onnxruntime",
        "does not follow": "1x1x8x8 is wanted",
    }
    files = [(by_runtime.get(problem, problem), make().SerializeToString()) for problem, make in stems.BAD.items()]
    files += [("onnxruntime's own format", stems.polyglot())]
    files += [
        ("cannot be read as ONNX", content)
        for content in (b"\xff\xff\xff", good[:-1], good + b"\xca\x81\x80\x80\x10\x00")
    ]
    files += [("does not hold one graph", good + good)]  # which protobuf would take together
    for at, (_, content) in enumerate(files):
        (tmp_path / str(at)).write_bytes(content)
    (tmp_path / "good").write_bytes(good)
    *said, sizes = node(
        """
        import { readFile } from "node:fs/promises";
        import * as runtime from "onnxruntime-web";
        import { CheckedFile } from "./dist/onnxruntime.js";
        const [folder, count] = process.argv.slice(1), said = [];
        const open = async (name, shape) => {
          const content = new Uint8Array(await readFile(`${folder}/${name}`));
          return CheckedFile.open(content, [1, 16, 16], shape, runtime).then(() => ["none", ""], error => [error.code, error.message]);
        };
        for (let at = 0; at < Number(count); at++) said.push(await open(at, [1, 8, 8]));
        console.log(JSON.stringify([...said, await open("good", [1, 4, 16])]));
        """,
        tmp_path,
        len(files),
    )
    assert [code for code, _ in said] == ["bad_stem"] * len(files)
    assert [(problem, text) for (problem, _), (_, text) in zip(files, said, strict=True) if problem not in text] == []
    assert sizes == [
        "bad_stem",
        "the ONNX file of the public part has 1 outputs (1x1x8x8); one of float32 1x1x4x16 is wanted: one sample at a time",
    ]


def test_the_operators_are_those_of_the_python_client(node: Callable[..., Any]) -> None:
    found = node("""import { OPERATORS } from "./dist/onnx-file.js"; console.log(JSON.stringify([...OPERATORS]));""")
    assert sorted(found) == sorted(onnx_file.OPERATORS)


def test_what_runs_is_what_was_read_and_its_failures_are_typed(node: Callable[..., Any], tmp_path: Path) -> None:
    made = stems.model(stems.CONV, stems.RELU)
    made.producer_name = "someone"
    made.metadata_props.add(key="ort_config", value="{}")
    made.graph.input.append(onnx.helper.make_tensor_value_info("kernel", 1, (9, 9)))
    half = onnx.helper.make_node("Div", ["integers", "two"], ["half"])
    (tmp_path / "good").write_bytes(made.SerializeToString() + b"\x52\x01?")
    (tmp_path / "fails").write_bytes(stems.out_of_range())
    (tmp_path / "divides").write_bytes(
        stems.model(stems.INTEGERS, stems.ints("two", 2), half, stems.CONV, stems.RELU).SerializeToString()
    )
    found = node(
        """
        import { readFile } from "node:fs/promises";
        import * as real from "onnxruntime-web";
        import { CheckedFile } from "./dist/onnxruntime.js";
        const [folder] = process.argv.slice(1), given = [];
        const create = (content, options) => {
          given.push([Buffer.from(content).toString("base64"), options.extra.session.load_model_format]);
          return real.InferenceSession.create(content, options);
        };
        const runtime = { Tensor: real.Tensor, InferenceSession: { create } };
        const open = async (name, by = runtime) =>
          CheckedFile.open(new Uint8Array(await readFile(`${folder}/${name}`)), [1, 16, 16], [1, 8, 8], by);
        const codeOf = work => work.then(() => "none", error => [error.code, error.message]);
        const ones = new Float32Array(256).fill(1);
        const good = await codeOf((await open("good")).run(ones));
        const fails = await open("fails");
        const other = { dims: [1, 1, 1, 1], type: "float32", data: new Float32Array(1) };
        const wrong = { Tensor: real.Tensor, InferenceSession: { create: async (...args) => {
          const session = await create(...args);
          session.run = async () => ({ out: other });
          return session;
        } } };
        console.log(JSON.stringify([
          given.slice(0, 2), good, await codeOf((await open("divides")).run(ones)), await codeOf(fails.run(new Float32Array(256))),
          await codeOf(fails.run(ones)), await codeOf((await open("good", wrong)).run(ones)),
        ]));
        """,
        tmp_path,
    )
    given, *quiet, fails, other = found
    assert quiet == ["none"] * 3
    assert [form for _, form in given] == ["ONNX"] * 2
    plain = stems.model(stems.CONV, stems.RELU)
    content = base64.b64decode(given[1][0])
    assert onnx.load_model_from_string(content) == plain
    assert len(content) == plain.ByteSize()
    assert fails[0] == other[0] == "bad_stem"
    assert "cannot be computed for this input" in fails[1]
    assert "in place of float32 1x1x8x8" in other[1]


def test_a_new_range_of_the_same_file_is_used(node: Callable[..., Any], tmp_path: Path) -> None:
    """The owner has converted the model again, while the client goes on."""
    (tmp_path / "file").write_bytes(stems.stem().onnx)
    found = node(
        """
        import { readFile } from "node:fs/promises";
        import { MemoryStore } from "./dist/index.js";
        import { Stems } from "./dist/stems.js";
        const [folder, sha256] = process.argv.slice(1), content = new Uint8Array(await readFile(`${folder}/file`));
        const stems = new Stems(new MemoryStore(), () => import("onnxruntime-web"));
        const profile = { model: "tiny", inputShape: [1, 8, 8] }, largest = [];
        let fetched = 0;
        const exchange = { send: async () => { fetched++; return { content }; } };
        for (const high of [2, 4, 4, 2]) {
          const range = { low: [0], high: [high], mostOutside: 1 };
          const stem = { public: "a", meaning: "", sha256, bytes: content.length, inputShape: [1, 16, 16], ...range };
          const opened = await stems.opened(exchange, profile, stem);
          largest.push(Math.max(...await opened.unit(new Float64Array(256).fill(1))));
        }
        console.log(JSON.stringify([largest, fetched]));
        """,
        tmp_path,
        stems.stem().sha256,
    )
    assert found == [[0.5, 0.25, 0.25, 0.5], 1]


def test_a_page_from_elsewhere_computes_the_public_part(
    package: Path, serving: ServerProcess, near: Callable[..., bool], tmp_path: Path
) -> None:
    """Under the policy of the document, with onnxruntime's two files beside the page."""
    shutil.copy(package / "dist" / "ciphershift.js", tmp_path)
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(package / "node_modules" / "onnxruntime-web" / "dist" / name, tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><title>elsewhere</title>")

    class Files(http.server.SimpleHTTPRequestHandler):
        extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", POLICY)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    handler = functools.partial(Files, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as files, headless() as browser:
        thread = threading.Thread(target=files.serve_forever, args=(0.02,))
        thread.start()
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{files.server_address[1]}/")
        rows = page.evaluate(
            """async ([url, images]) => {
              const { Client } = await import("/ciphershift.js");
              const onnxruntime = () => import("/ort.wasm.bundle.min.mjs");
              const client = await Client.connect(url, { allowToyParameters: true, onnxruntime });
              const rows = await client.predict(images.map(each => Uint8Array.from(each)));
              return rows.map(row => Array.from(row));
            }""",
            [serving.url, json.loads(PIXELS)],
        )
        page.close()
        files.shutdown()
        thread.join()
    assert near(rows)
    assert not [text for text in complaints if "favicon" not in text and "404" not in text]


def test_the_page_that_the_server_serves_computes_it_if_it_has_onnxruntime(
    package: Path, program: Program, tmp_path: Path
) -> None:
    """The very files that the page was made with: others do not have the digests that its script names."""
    safe = replace(program, params="FAST_N512_PAIRS")
    safe.save(tmp_path / "models" / safe.name)
    files = tmp_path / "dist"
    files.mkdir()
    for name in site.ONNXRUNTIME:
        shutil.copy(package / "node_modules" / "onnxruntime-web" / "dist" / name, files)
    image = io.BytesIO()
    Image.fromarray(IMAGES[0, 0]).save(image, "PNG")
    chosen: Any = {"name": "scan.png", "mimeType": "image/png", "buffer": image.getvalue()}
    wanted = safe.output.classes[int(simulate.plain(safe, IMAGES[:1])[0].argmax())]
    settings = {"models": tmp_path / "models", "page": True, "page_onnxruntime": files}
    with running_server(**settings) as server, headless() as browser:
        page = browser.new_page()
        page.goto(f"{server.url}/page/")
        page.locator("#file").set_input_files(chosen)
        expect(page.locator("#prepared-text")).to_contain_text(
            "to the network's public part, in this browser: scan.png", timeout=ANSWER_MILLISECONDS
        )
        send(page)
        expect(page.locator("#verdict-class")).to_have_text(wanted, timeout=ANSWER_MILLISECONDS)
        module = files / site.ONNXRUNTIME[0]
        module.write_bytes(module.read_bytes() + b"\n")
        page.reload()
        page.locator("#file").set_input_files(chosen)
        page.get_by_role("button", name="Encrypt and send").click()
        expect(page.get_by_role("alert")).to_contain_text(
            "which this page computes with onnxruntime-web", timeout=ANSWER_MILLISECONDS
        )
        page.close()
