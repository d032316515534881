"""The npm package: its own tests, its types, what it consists of, and that its generated parts are those of today's sources."""

import gzip
import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ciphershift.benchmarks.harness.server_process import running_server
from ciphershift.client import Client, Keystore
from ciphershift.errors import CiphershiftError, WorkshopError
from ciphershift.he_layers.crypto.evaluation_keys import EvaluationKeys
from ciphershift.he_layers.crypto.params import SETS
from ciphershift.protocol import site
from ciphershift.protocol.container import read_header
from ciphershift.server.settings import ZOO
from tests.client.web.conftest import WEB, block, run
from tests.support.documents import ROOT

MOST_GZIPPED_BYTES = 400_000
SEVEN = ROOT / "client" / "samples" / "mnist-0-is-7.png"
USER = """
import { CiphershiftError, Client, Keystore, type ModelInputs, type ModelProfile, type Progress, fit } from "ciphershift";
import { FolderStore } from "ciphershift/node";

const onnxruntime = () => import("onnxruntime-web");

export async function digit(pixels: Uint8Array): Promise<string> {
  const keystore = new Keystore(new FolderStore("keys"), { passphrase: "correct horse" });
  const client: Client = await Client.connect("http://127.0.0.1:8000", { model: "mnist-tiny", keystore, retryTimeout: 5, onnxruntime });
  const profile: ModelProfile = client.profile;
  try {
    const onProgress = (progress: Progress): number => (progress.stage === "upload" ? progress.sent / progress.total : 0);
    const logits: Float64Array = await client.predict(pixels, { onProgress });
    const inputs: ModelInputs = await client.inputs();
    const image = fit({ width: 280, height: 280, data: new Uint8ClampedArray(4 * 280 * 280) }, profile, inputs.images ?? "drawing");
    const rows: Float64Array[] = await client.predict([pixels, image.pixels, ...inputs.examples.map((example) => example.values)]);
    return profile.classes[logits.indexOf(Math.max(...logits))] ?? String(rows.length);
  } catch (error) {
    return error instanceof CiphershiftError ? error.code : "unknown";
  } finally {
    await client.close();
  }
}
"""
WRONG = """
import { Client } from "ciphershift";
export const logits: Promise<string> = (await Client.connect("http://127.0.0.1:8000")).predict("seven");
"""


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = script(WEB / "kernel" / "build.py")


def test_the_packages_own_tests_pass(package: Path) -> None:
    run("npm", "test", cwd=package)


def test_the_kernel_is_made_of_todays_sources() -> None:
    text = BUILD.MODULE.read_text(encoding="utf-8")
    assert f'SOURCES: string = "{BUILD.sources_digest()}"' in text, (
        "run client/web/kernel/build.py and commit its output"
    )


@pytest.mark.slow  # the compiler builds its C library first
def test_the_kernel_compiles_to_the_very_bytes_that_are_shipped() -> None:
    try:
        installed = metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        installed = None
    if installed != BUILD.ZIG:
        pytest.skip(f"ziglang {BUILD.ZIG} is not installed, but {installed}")
    assert BUILD.module(BUILD.compiled()) == BUILD.MODULE.read_text(encoding="utf-8")


def test_the_registry_of_parameter_sets_is_pythons(node: Callable[..., Any]) -> None:
    registry = script(WEB / "parameter_sets.py")
    assert registry.registry() == registry.REGISTRY.read_text(encoding="utf-8"), "run client/web/parameter_sets.py"
    found = node("""
      import { ParameterSet } from "./dist/params.js";
      console.log(JSON.stringify(await ParameterSet.all()));
    """)
    assert {entry["name"]: entry["id"] for entry in found} == {name: params.id for name, params in SETS.items()}
    numbers = node("""
      import { ParameterSet } from "./dist/params.js";
      import { evaluationFields } from "./dist/secret-keys.js";
      const sizes = set => [set.bskEntries, set.answerKeyRows, evaluationFields(set).map(field => [field.name, field.count, field.bits])];
      console.log(JSON.stringify((await ParameterSet.all()).map(sizes)));
    """)
    assert numbers == [
        [
            params.bsk_entries,
            params.answer_key_rows,
            [[f.name, f.count, f.bits] for f in EvaluationKeys._fields(params)],
        ]
        for params in SETS.values()
    ]


def test_the_errors_are_pythons(node: Callable[..., Any]) -> None:
    found = node("""
      import { ERRORS } from "./dist/errors.js";
      console.log(JSON.stringify(ERRORS.map(each => [each.code, Object.getPrototypeOf(each).code ?? null])));
    """)
    known = [error for error in CiphershiftError.by_code.values() if not issubclass(error, WorkshopError)]
    parents = {child.code: error.code for error in known for child in error.__subclasses__()}
    assert dict(found) == {error.code: parents.get(error.code) for error in known}


def test_the_page_that_python_ships_is_made_of_todays_sources(package: Path, tmp_path: Path) -> None:
    shipped = {path.name: path.read_bytes() for path in site.FOLDER.iterdir()}
    for name in shipped.keys() - {"page.js"}:
        (tmp_path / name).write_bytes(re.sub(rb'integrity="[^"]*"', b'integrity=""', shipped[name]))
    run("node", "page/build.mjs", tmp_path, cwd=package)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == shipped, "run `npm run page` in client/web and commit its output"


def test_a_users_script_is_checked_by_its_types(package: Path, tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "ciphershift").symlink_to(package)
    (tmp_path / "node_modules" / "onnxruntime-web").symlink_to(package / "node_modules" / "onnxruntime-web")
    (tmp_path / "user.ts").write_text(USER)
    (tmp_path / "wrong.ts").write_text(WRONG)
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--ignoreConfig"]
    compiler = str(package / "node_modules" / ".bin" / "tsc")
    types = ["--typeRoots", str(package / "node_modules" / "@types"), "--types", "node"]
    run(compiler, *options, *types, "user.ts", cwd=tmp_path)
    with pytest.raises(AssertionError, match=r"wrong\.ts\(3,\d+\): error TS2322"):
        run(compiler, *options, *types, "wrong.ts", cwd=tmp_path)


def test_the_hook_of_the_document_is_checked_by_reacts_types(package: Path, tmp_path: Path) -> None:
    modules = tmp_path / "node_modules"
    (modules / "@types").mkdir(parents=True)
    (modules / "ciphershift").symlink_to(package)
    (modules / "@types" / "react").symlink_to(package / "node_modules" / "@types" / "react")
    (tmp_path / "use-prediction.tsx").write_text(block(ROOT / "docs" / "browser.md", "use-prediction.tsx"))
    options = [
        "--strict",
        "--noEmit",
        "--target",
        "es2022",
        "--module",
        "preserve",
        "--jsx",
        "react-jsx",
        "--ignoreConfig",
    ]
    run(str(package / "node_modules" / ".bin" / "tsc"), *options, "use-prediction.tsx", cwd=tmp_path)


@pytest.mark.slow  # a whole prediction by Node; its parts are tested in the others
def test_the_script_for_node_of_the_document_classifies(package: Path, tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "ciphershift").symlink_to(package)
    (tmp_path / "classify.mjs").write_text(block(ROOT / "docs" / "browser.md", "classify.mjs"))
    (tmp_path / "seven").write_bytes(np.asarray(Image.open(SEVEN)).tobytes())
    shutil.copytree(ZOO / "mnist-tiny", tmp_path / "models" / "mnist-tiny")
    with running_server(models=tmp_path / "models") as server:
        assert run("node", "classify.mjs", server.url, "seven", "keys", cwd=tmp_path) == "7\n"
        (evaluation,) = (tmp_path / "keys").glob("*/evaluation.keys")
        used = read_header(evaluation.read_bytes()).key_id
        with Client(server.url, model="mnist-tiny", keystore=Keystore(tmp_path / "keys")) as client:
            assert client.prepare() == used  # the folder is the Python client's, too


def test_what_is_published_is_the_build_alone_and_small(package: Path) -> None:
    (listed,) = json.loads(run("npm", "pack", "--dry-run", "--json", "--ignore-scripts", cwd=package))
    files = {entry["path"] for entry in listed["files"]}
    assert {
        "package.json",
        "README.md",
        "LICENSE",
        "dist/index.js",
        "dist/index.d.ts",
        "dist/node.js",
        "dist/ciphershift.js",
    } <= files
    assert all(name.startswith("dist/") for name in files - {"package.json", "README.md", "LICENSE"})
    bundle = (package / "dist" / "ciphershift.js").read_bytes()
    assert len(gzip.compress(bundle)) < MOST_GZIPPED_BYTES
    assert not [line for line in bundle.splitlines() if line.startswith((b"import ", b"import{"))], (
        "the bundle fetches something"
    )
